//! Later.
use crate::{Result, options::Options};
/// Later.
pub fn trace_floor(_: &Options) -> Result<()> {
    Err("later".into())
}
