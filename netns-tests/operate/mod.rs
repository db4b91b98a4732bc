//! Commands of an operator against a box with real traffic.

mod confirm;
