//! Regular expressions of the C library (`regex(3)`): the extended ones of POSIX, which `kill --regex` and `delete --regex` take.

use core::mem::MaybeUninit;
use std::borrow::ToOwned;
use std::ffi::{CStr, CString};
use std::string::String;

/// A compiled pattern.
pub struct Pattern(libc::regex_t);

impl Pattern {
    /// Compiles an extended regular expression.
    ///
    /// # Errors
    /// The library's sentence about what is wrong with it.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let Ok(text) = CString::new(text) else { return Err("contains a NUL character".to_owned()) };
        let mut compiled = MaybeUninit::<libc::regex_t>::zeroed();
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: `compiled` has room for one `regex_t`, and the pattern ends in NUL.
        let status = unsafe { libc::regcomp(compiled.as_mut_ptr(), text.as_ptr(), flags) };
        if status == 0 {
            // SAFETY: regcomp has filled it, as it returned zero.
            return Ok(Pattern(unsafe { compiled.assume_init() }));
        }
        let mut sentence = [0u8; 128];
        // SAFETY: the library writes at most as many bytes as the array has, the last of them NUL; of `compiled`, which is all zeroes or
        // what a failed regcomp has left, it reads nothing.
        unsafe { libc::regerror(status, compiled.as_ptr(), sentence.as_mut_ptr().cast(), sentence.len()) };
        Err(match CStr::from_bytes_until_nul(&sentence) {
            Ok(sentence) => sentence.to_string_lossy().into_owned(),
            Err(_) => "is no regular expression".to_owned(),
        })
    }

    /// Whether it is found anywhere in `text`.
    pub fn is_in(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: the pattern is compiled, the text ends in NUL; no matches are asked for, so that none are written.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, core::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        // SAFETY: compiled by regcomp, and freed here alone.
        unsafe { libc::regfree(&raw mut self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_pattern_is_found_anywhere_unless_it_is_anchored() {
        let found = |pattern: &str, text: &str| Pattern::new(pattern).unwrap().is_in(text);
        assert!(found("eb", "web") && found("^w.b$", "web") && found("w(a|eb)[0-9]+", "my-web12"));
        assert!(!found("^eb", "web") && !found("w.b$", "web1") && !found("W", "web"));
        assert!(found("", "web"));
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for pattern in ["(", "[", "a{2", "a\0"] {
            assert!(Pattern::new(pattern).is_err_and(|sentence| !sentence.is_empty()), "{pattern:?}");
        }
    }
}
