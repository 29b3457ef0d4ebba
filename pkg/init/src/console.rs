//! The container's terminal.

use crate::{At, Failure, Init, Outcome};
use cofferdam_step::{Attempt, Slot};
use cofferdam_sys::{Borrowed, Errno, Fd, fs, mount, net};

/// `DEVPTS_SUPER_MAGIC`
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// What the terminal is to be like.
pub(crate) struct Console {
    /// Rows and columns.
    pub(crate) size: Option<(u16, u16)>,
    /// It is `/dev/console`.
    pub(crate) mounted: bool,
    /// Its owner.
    pub(crate) uid: u32,
    /// No carriage return in front of a line feed.
    pub(crate) plain: bool,
}

impl Init {
    /// The master goes to the socket; the peer becomes stdin, stdout, stderr and `/dev/console`. The peer comes from the master
    /// itself, so no path below /dev/pts is walked (CVE-2025-52565).
    pub(crate) fn open_console(&mut self, socket: Slot, console: &Console) -> Outcome {
        let socket = self.slot(socket)?;
        let master = self.open_master()?;
        net::unlock_pty(&master).at(Attempt::Pty)?;
        let peer = net::pty_peer(&master).at(Attempt::Pty)?;
        if let Some((rows, columns)) = console.size {
            net::set_window_size(&master, rows, columns).at(Attempt::Pty)?;
        }
        if console.plain {
            net::keep_line_ends(&peer).at(Attempt::Pty)?;
        }
        if console.uid != 0 {
            fs::fchown(&peer, console.uid, u32::MAX).at(Attempt::Chown)?;
        }
        if console.mounted {
            self.mount_console(&peer)?;
        }
        net::send_fd(&socket, b"/dev/ptmx", &master).at(Attempt::SendFd)?;
        for number in 0..3 {
            fs::dup_onto(&peer, number).at(Attempt::Pty)?;
        }
        Ok(())
    }

    /// Of whoever leads the session: a leader that ends hangs its terminal up, so it has to be the container's own process.
    pub(crate) fn take_terminal() -> Outcome {
        net::set_controlling_terminal(&Borrowed(0)).at(Attempt::Pty)
    }

    /// `/dev/pts/ptmx` of the container, proved to be a devpts's.
    fn open_master(&mut self) -> Outcome<Fd> {
        let flags = fs::O_RDWR | fs::O_NOCTTY;
        let root = self.root()?;
        let master = match root.open(b"/dev/pts/ptmx", flags) {
            Err(Errno::ENOENT) => root.open(b"/dev/ptmx", flags),
            other => other,
        }
        .at(Attempt::Pty)?;
        let device = fs::stat(&master, b"").at(Attempt::Stat)?;
        if fs::statfs(&master).at(Attempt::Stat)?.0 != DEVPTS_MAGIC || !device.is_char_device(5, 2) {
            return Err(Failure { attempt: Attempt::WrongType, errno: Errno::ENXIO, detail: 0 });
        }
        Ok(master)
    }

    fn mount_console(&mut self, peer: &Fd) -> Outcome {
        let console = self.root()?.make_file(b"/dev/console", 0o666).at(Attempt::MakeFile)?;
        match mount::open_tree_clone(peer, b"", false) {
            Ok(tree) => mount::move_mount(&tree, &console).at(Attempt::MoveMount),
            Err(Errno::ENOSYS | Errno::EPERM) => {
                let mut text = [0u8; 32];
                let source = cofferdam_sys::root::decimal_path(b"self/fd/", peer.raw(), &mut text);
                self.mount_on(source, &console, b"", mount::MS_BIND, b"").at(Attempt::Mount)
            }
            Err(errno) => Err(Failure { attempt: Attempt::OpenTree, errno, detail: 0 }),
        }
    }
}
