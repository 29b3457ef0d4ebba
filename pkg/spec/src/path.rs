//! Paths as text.

use std::borrow::Cow;

/// Absolute and free of `.`, `..` and doubled slashes, by the letters alone; a relative path counts from the root.
///
/// Where `..` follows a symbolic link of the rootfs this is not where the kernel would go; it is where runc does, and what
/// matters is that it lies below the root.
pub fn clean(path: &str) -> Cow<'_, str> {
    if is_clean(path) {
        return Cow::Borrowed(path);
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Cow::Owned(format!("/{}", parts.join("/")))
}

/// Whether a clean path is `dir` or lies below it, by whole names.
pub fn lies_in(path: &str, dir: &str) -> bool {
    let dir = dir.trim_end_matches('/');
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether it begins with a slash, and no part is empty, `.` or `..`.
fn is_clean(path: &str) -> bool {
    let [b'/', rest @ ..] = path.as_bytes() else { return false };
    // A config with many mounts asks some five times for each. Of the part that is being read: letters so far, and whether there was
    // another one than a dot.
    let (mut length, mut named) = (0, false);
    for byte in rest {
        if *byte != b'/' {
            length += 1;
            named |= *byte != b'.';
        } else if named || length > 2 {
            (length, named) = (0, false);
        } else {
            return false;
        }
    }
    named || length > 2 || rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_by_its_letters() {
        assert_eq!(clean("/dev"), "/dev");
        assert_eq!(clean("/"), "/");
        assert_eq!(clean("/a/"), "/a");
        assert_eq!(clean("/a/.b/..c/d."), "/a/.b/..c/d.");
        assert_eq!(clean("a/b"), "/a/b");
        assert_eq!(clean("/dev//./pts/"), "/dev/pts");
        assert_eq!(clean("../../etc"), "/etc");
        assert_eq!(clean("/a/../../b"), "/b");
        assert_eq!(clean("/..."), "/...");
        assert_eq!(clean(""), "/");
    }

    #[test]
    fn what_lies_in_a_directory_is_told_by_whole_names() {
        for (path, dir) in [("/a", "/"), ("/a/b", "/a"), ("/a", "/a"), ("/", "/")] {
            assert!(lies_in(path, dir), "{path} {dir}");
        }
        for (path, dir) in [("/ab", "/a"), ("/", "/a"), ("/a", "/a/b")] {
            assert!(!lies_in(path, dir), "{path} {dir}");
        }
    }
}
