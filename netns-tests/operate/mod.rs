//! Commands with which an operator looks into a running box, on real traffic.

mod explain;
