//! The test program: what a test declares, how it is run, and what it has at hand.
//!
//! `cofferdam-tests` starts itself again twice for each test: a *supervisor* in a mount namespace of its own, which cleans up
//! whatever happens and looks for what was left behind, and under it the *test*, which may panic or hang.

pub mod bundle;
pub mod call;
pub mod cgroups;
pub mod container;
pub mod host;
pub mod options;
pub mod procs;
pub mod runner;
pub mod supervisor;
pub mod test;
pub mod world;

pub use bundle::Bundle;
pub use call::{Call, Out, Running};
pub use container::Container;
pub use test::{Need, Test};
pub use world::T;
