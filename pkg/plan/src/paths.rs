//! Paths as text.

/// Absolute and free of `.`, `..` and doubled slashes, by the letters alone; a relative path counts from the root.
///
/// Where `..` follows a symbolic link of the rootfs this is not where the kernel would go; it is where runc does, and what
/// matters is that it lies below the root.
pub(crate) fn clean(path: &str) -> String {
    if is_clean(path) {
        return path.to_owned();
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
    format!("/{}", parts.join("/"))
}

fn is_clean(path: &str) -> bool {
    match path.strip_prefix('/') {
        Some("") => true,
        Some(rest) => rest.split('/').all(|part| !matches!(part, "" | "." | "..")),
        None => false,
    }
}

/// `path`, or below `base` when it is relative.
pub(crate) fn absolute(base: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{base}/{path}")) }
}

/// A destination below the container's root. One that begins with the rootfs's own path on the host means what lies below that, as
/// with runc.
pub(crate) fn below_root(root: &str, path: &str) -> String {
    let path = clean(path);
    match path.strip_prefix(root) {
        Some("") if root != "/" => "/".to_owned(),
        Some(rest) if root != "/" && rest.starts_with('/') => rest.to_owned(),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_below_the_root() {
        assert_eq!(clean("/dev"), "/dev");
        assert_eq!(clean("/dev//./pts/"), "/dev/pts");
        assert_eq!(clean("../../etc"), "/etc");
        assert_eq!(clean("/a/../../b"), "/b");
        assert_eq!(clean(""), "/");
        assert_eq!(absolute("/bundle", "rootfs"), "/bundle/rootfs");
        assert_eq!(absolute("/bundle", "../x"), "/x");
        assert_eq!(absolute("/bundle", "/srv/"), "/srv");
        assert_eq!(below_root("/b/rootfs", "/b/rootfs/../rootfs/mnt"), "/mnt");
        assert_eq!(below_root("/b/rootfs", "/b/rootfs"), "/");
        assert_eq!(below_root("/b/rootfs", "/b/rootfs2"), "/b/rootfs2");
        assert_eq!(below_root("/", "/mnt"), "/mnt");
    }
}
