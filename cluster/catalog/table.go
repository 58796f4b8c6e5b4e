package catalog

import (
	"iter"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// table is an ordered map that is never changed: set and drop make the variable stand
// for another one, which shares all but a few nodes with the one before. The zero value
// is empty.
type table[V any] struct{ tree *iradix.Tree[V] }

func (t table[V]) get(key string) (v V, found bool) {
	if t.tree == nil {
		return v, false
	}
	return t.tree.Get([]byte(key))
}

func (t table[V]) has(key string) bool {
	_, found := t.get(key)
	return found
}

func (t table[V]) len() int {
	if t.tree == nil {
		return 0
	}
	return t.tree.Len()
}

func (t *table[V]) set(key string, v V) {
	if t.tree == nil {
		t.tree = iradix.New[V]()
	}
	t.tree, _, _ = t.tree.Insert([]byte(key), v)
}

func (t *table[V]) drop(key string) {
	if t.tree != nil {
		t.tree, _, _ = t.tree.Delete([]byte(key))
	}
}

// all are the entries whose keys have the prefix, ascending by key.
func (t table[V]) all(prefix string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if t.tree == nil {
			return
		}
		it := t.tree.Root().Iterator()
		it.SeekPrefix([]byte(prefix))
		for key, v, more := it.Next(); more && yield(string(key), v); key, v, more = it.Next() {
		}
	}
}

// values are the entries whose keys have the prefix, ascending by key.
func (t table[V]) values(prefix string) iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range t.all(prefix) {
			if !yield(v) {
				return
			}
		}
	}
}

// from are the entries from a key on, ascending.
func (t table[V]) from(key string) iter.Seq[V] {
	return func(yield func(V) bool) {
		if t.tree == nil {
			return
		}
		it := t.tree.Root().Iterator()
		it.SeekLowerBound([]byte(key))
		for _, v, more := it.Next(); more && yield(v); _, v, more = it.Next() {
		}
	}
}

// first is the entry with the lowest key.
func (t table[V]) first() (key string, v V) {
	for key, v = range t.all("") {
		break
	}
	return key, v
}

// longest is the entry with the longest key that name begins with.
func (t table[V]) longest(name string) (v V, found bool) {
	if t.tree == nil {
		return v, false
	}
	_, v, found = t.tree.Root().LongestPrefix([]byte(name))
	return v, found
}

// free is the lowest number from one on that none of the entries has.
func free[V any](entries iter.Seq[V], from int, number func(V) int) int {
	taken := map[int]bool{}
	for v := range entries {
		taken[number(v)] = true
	}
	for taken[from] {
		from++
	}
	return from
}
