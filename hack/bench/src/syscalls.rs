//! Later.
use crate::{Result, options::Options};
/// Later.
pub fn count(_: &Options) -> Result<()> {
    Err("later".into())
}
