//! Rust strings as the kernel wants them: ending in a NUL, without one inside.

use crate::{Errno, Result};
use alloc_crate::vec::Vec;

/// Most paths fit here, and then cost no allocation.
const ON_STACK: usize = 256;

/// Calls `then` with a NUL-terminated copy of `text`. EINVAL when there is a NUL inside.
pub(crate) fn with_nul<T>(text: &[u8], then: impl FnOnce(*const u8) -> Result<T>) -> Result<T> {
    if text.contains(&0) {
        return Err(Errno::EINVAL);
    }
    if text.len() < ON_STACK {
        let mut buffer = [0u8; ON_STACK];
        buffer[..text.len()].copy_from_slice(text);
        then(buffer.as_ptr())
    } else {
        let mut buffer = Vec::with_capacity(text.len() + 1);
        buffer.extend_from_slice(text);
        buffer.push(0);
        then(buffer.as_ptr())
    }
}

/// NUL-terminated strings and the NULL-terminated array of their addresses: an argv or envp.
pub struct Strings {
    /// Keeps what `pointers` points to.
    _bytes: Vec<u8>,
    pointers: Vec<*const u8>,
}

impl Strings {
    /// Copies the strings. EINVAL when one has a NUL inside.
    pub fn new<S: AsRef<[u8]>>(strings: &[S]) -> Result<Strings> {
        let total = strings.iter().map(|s| s.as_ref().len() + 1).sum();
        let mut bytes = Vec::with_capacity(total);
        for s in strings {
            if s.as_ref().contains(&0) {
                return Err(Errno::EINVAL);
            }
            bytes.extend_from_slice(s.as_ref());
            bytes.push(0);
        }
        let mut pointers = Vec::with_capacity(strings.len() + 1);
        let mut offset = 0;
        for s in strings {
            pointers.push(bytes[offset..].as_ptr());
            offset += s.as_ref().len() + 1;
        }
        pointers.push(core::ptr::null());
        Ok(Strings { _bytes: bytes, pointers })
    }

    /// The array for execve.
    pub(crate) fn as_ptr(&self) -> *const *const u8 {
        self.pointers.as_ptr()
    }
}
