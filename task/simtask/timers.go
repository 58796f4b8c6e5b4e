package simtask

import (
	"container/heap"
	"time"
)

// timer wakes a task if it is still in the wait for which the timer was made.
type timer struct {
	when time.Duration
	seq  uint64 // of two at the same time the older one comes first
	task *coro
	park uint64
}

// timers is a heap of timers, the next one first.
type timers struct {
	heap timerHeap
	made uint64 // counts timers and tasks
}

func (t *timers) push(n timer) {
	t.made++
	n.seq = t.made
	heap.Push(&t.heap, n)
}

func (t *timers) first() (timer, bool) {
	for len(t.heap) > 0 {
		n := t.heap[0]
		if n.task.park == n.park && !n.task.ended && !n.task.group.dead {
			return n, true
		}
		heap.Pop(&t.heap)
	}
	return timer{}, false
}

func (t *timers) pop() { heap.Pop(&t.heap) }

type timerHeap []timer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	if h[i].when != h[j].when {
		return h[i].when < h[j].when
	}
	return h[i].seq < h[j].seq
}
func (h timerHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)   { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	old := *h
	n := old[len(old)-1]
	old[len(old)-1] = timer{}
	*h = old[:len(old)-1]
	return n
}
