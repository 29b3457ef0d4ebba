//! Paths as text.

use cofferdam_spec::clean;
use std::borrow::Cow;

/// `path`, or below `base` when it is relative.
pub(crate) fn absolute(base: &str, path: &str) -> String {
    if path.starts_with('/') {
        clean(path).into_owned()
    } else {
        clean(&format!("{base}/{path}")).into_owned()
    }
}

/// A destination below the container's root. One that begins with the rootfs's own path on the host means what lies below that, as
/// with runc.
pub(crate) fn below_root<'p>(root: &str, path: &'p str) -> Cow<'p, str> {
    let path = clean(path);
    match path.strip_prefix(root) {
        Some("") if root != "/" => Cow::Borrowed("/"),
        Some(rest) if root != "/" && rest.starts_with('/') => Cow::Owned(rest.to_owned()),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_lies_below_the_root() {
        assert_eq!(absolute("/bundle", "rootfs"), "/bundle/rootfs");
        assert_eq!(absolute("/bundle", "../x"), "/x");
        assert_eq!(absolute("/bundle", "/srv/"), "/srv");
        assert_eq!(below_root("/b/rootfs", "/b/rootfs/../rootfs/mnt"), "/mnt");
        assert_eq!(below_root("/b/rootfs", "/b/rootfs"), "/");
        assert_eq!(below_root("/b/rootfs", "/b/rootfs2"), "/b/rootfs2");
        assert_eq!(below_root("/", "/mnt"), "/mnt");
    }
}
