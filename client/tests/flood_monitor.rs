//! Runs the tests of the flood monitor's pure parts, which lie beside it. Never here: a test, or a cluster (node/tests/live runs the program).
//! An example that is built for its own tests is not built as a program, and the programs are run by tests too.

#[allow(dead_code, reason = "a program, of which tests use parts")]
#[path = "../examples/flood_monitor.rs"]
mod flood_monitor;
