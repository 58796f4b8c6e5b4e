// Package layout holds the tests that keep the order of the folders: who may
// import whom, and that every package says what it is for. The rules stand in
// layout_test.go as tables; a new package is entered there.
package layout
