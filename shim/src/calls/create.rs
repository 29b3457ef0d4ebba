//! Create: the rootfs mounted, the streams opened, the runtime's `create`; or all of that but the process, which comes out of a checkpoint.

use super::Done;
use crate::{
    bundle::Config,
    cgroup::Cgroup,
    oom,
    options::Options,
    publisher::Topic,
    rootfs,
    runtime::{self, Engine, Restore, Started, Stdio},
    server::Call,
    shim::Shim,
    status::Status,
    stdio::{Ends, Owner, Paths},
    streams::{End, Key, Plan, Role},
    task::{Container, Io, Process, State, init_key},
};
use cofferdam_proto::{Empty, events, task};
use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

impl Shim {
    pub(super) fn create(&mut self, call: Call, request: task::CreateTaskRequest) {
        if self.containers.contains_key(&request.id) || !self.creating.insert(request.id.clone()) {
            let status = Status::already_exists(&format!("container {}", request.id));
            return self.answer(call, Err::<Empty, _>(status));
        }
        let namespace = self.namespace.clone();
        self.jobs.run(
            move || (make_container(&request, &namespace), request),
            move |shim, (made, request)| {
                shim.creating.remove(&request.id);
                match made {
                    Ok(made) => shim.created(call, request, made),
                    Err(status) => shim.answer(call, Err::<Empty, _>(status)),
                }
            },
        );
    }

    fn created(&mut self, call: Call, request: task::CreateTaskRequest, made: Made) {
        let id = request.id.clone();
        let key = init_key(&id);
        let pid = made.started.as_ref().map_or(0, |started| started.pid);
        self.containers.insert(id.clone(), made.container);
        self.publish(
            Topic::Create,
            &id,
            &events::TaskCreate {
                container_id: id.clone(),
                bundle: request.bundle,
                rootfs: request.rootfs,
                io: Some(events::TaskIO {
                    stdin: request.stdin,
                    stdout: request.stdout,
                    stderr: request.stderr,
                    terminal: request.terminal,
                    ..Default::default()
                })
                .into(),
                checkpoint: request.checkpoint,
                pid: pid as u32,
                ..Default::default()
            },
        );
        self.watch_oom(&id, made.notice);
        match made.started {
            Some(started) => {
                self.connect_streams(&key, made.ends, started);
                self.watch_process(&key);
            }
            None => self.keep_ends(&key, made.ends),
        }
        self.answer(call, Ok(task::CreateTaskResponse { pid: pid as u32, ..Default::default() }));
    }

    /// The process is there: its streams begin to flow.
    pub(super) fn connect_streams(&mut self, key: &Key, ends: Ends, started: Started) {
        let console = started.console.map(Arc::new);
        let terminal = || console.clone().map(End::Terminal);
        if let Some(console) = &console
            && let Err(error) = crate::stdio::set_nonblocking(console)
        {
            crate::error!("terminal of {}: {error}", key.id);
        }
        let mut io = Io::default();
        if let Some(input) = ends.input {
            io.held_input = Some(input.held);
            let pipes = input.pipe.is_some();
            if let Some(sink) = input.pipe.map(End::Own).or_else(terminal) {
                let plan = Plan {
                    owner: key.clone(),
                    role: Role::Input,
                    source: End::Own(input.fifo),
                    sink,
                    held: None,
                    pipes,
                    regular_sink: false,
                };
                io.input = Some(self.streams.add(&mut self.poll, plan));
            }
        }
        for output in ends.outputs {
            let pipes = output.pipe.is_some() && !output.sink.regular;
            let Some(source) = output.pipe.map(End::Own).or_else(terminal) else { continue };
            let plan = Plan {
                owner: key.clone(),
                role: Role::Output,
                source,
                sink: End::Own(output.sink.file),
                held: output.sink.held,
                pipes,
                regular_sink: output.sink.regular,
            };
            io.outputs.push(self.streams.add(&mut self.poll, plan));
        }
        if let Some(logger) = ends.logger {
            io.logger_pipes.extend(logger.stdout);
            io.logger_pipes.extend(logger.stderr);
            io.logger = Some(self.watch_logger(logger.pid, logger.pidfd));
        }
        io.console = console;
        let Some(process) = self.process(key) else { return };
        (process.pid, process.pidfd, process.io) = (started.pid, Some(started.pidfd), io);
    }

    /// The process comes later, out of a checkpoint: until then its streams' ends wait.
    fn keep_ends(&mut self, key: &Key, ends: Ends) {
        if let Some(container) = self.containers.get_mut(&key.id) {
            container.kept_ends = Some(ends);
        }
    }
}

/// What Create's worker has made.
struct Made {
    container: Container,
    started: Option<Started>,
    ends: Ends,
    notice: Option<oom::Notice>,
}

/// All of Create that blocks. Whatever fails, what was done before is undone.
fn make_container(request: &task::CreateTaskRequest, namespace: &str) -> Done<Made> {
    let bundle = PathBuf::from(&request.bundle);
    let options = Options::from_any(request.options.as_ref()).map_err(Status::invalid_argument)?;
    let config = Config::read(&bundle)
        .map_err(|error| Status::unknown(format!("{}/config.json: {error}", request.bundle)))?;
    let engine = runtime::engine(&options, namespace, Some(&config));
    options.save(&bundle).map_err(|error| Status::unknown(format!("options.json: {error}")))?;
    let root = bundle.join("rootfs");
    if !request.rootfs.is_empty() {
        match std::fs::DirBuilder::new().mode(0o711).create(&root) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Status::unknown(format!("mkdir {}: {error}", root.display())));
            }
            _ => {}
        }
    }
    let mounted = rootfs::mount(&request.rootfs, &root).map_err(Status::unknown)?;
    let paths = Paths {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    };
    // Engines tell the owner of pipes to io.containerd.runc.v2 alone, but a remapped root must be able to open its /dev/stdout, too.
    let io_owner = match (options.io_uid, options.io_gid) {
        (0, 0) => config.root_owner(),
        owner => owner,
    };
    let owner = Owner { uid: io_owner.0, gid: io_owner.1, id: &request.id, namespace };
    let (stdio, ends) = paths
        .open(&owner)
        .map_err(|error| Status::unknown(format!("failed to create init process I/O: {error}")))?;
    let mut made = Made {
        container: Container {
            bundle: bundle.clone(),
            engine: engine.clone(),
            init: Process::new(State::Created, paths),
            execs: Default::default(),
            running_execs: 0,
            init_exit: None,
            owns_pids: config.has_own_pid_namespace(),
            cgroup: None,
            oom: None,
            restore: None,
            kept_ends: None,
            io_owner,
            after_exit: None,
        },
        started: None,
        ends,
        notice: None,
    };
    if request.checkpoint.is_empty() {
        made.start(&*engine, &request.id, &bundle, stdio)?;
    } else {
        made.container.init.state = State::Checkpointed;
        made.container.restore = Some((restore_of(request, &options, &bundle), stdio));
    }
    mounted.keep();
    Ok(made)
}

impl Made {
    fn start(&mut self, engine: &dyn Engine, id: &str, bundle: &Path, stdio: Stdio) -> Done<()> {
        let started = engine.create(id, bundle, stdio)?;
        let cgroup = Cgroup::of(started.pid);
        if let Some(cgroup) = &cgroup {
            cgroup.enable_controllers();
        }
        self.notice = cgroup.as_ref().and_then(oom::Notice::ask);
        self.container.cgroup = cgroup.map(Arc::new);
        self.started = Some(started);
        Ok(())
    }
}

fn restore_of(request: &task::CreateTaskRequest, options: &Options, bundle: &Path) -> Restore {
    let work = Some(&options.criu_work_path).filter(|path| !path.is_empty());
    Restore {
        image: PathBuf::from(&request.checkpoint),
        parent: Some(&request.parent_checkpoint).filter(|path| !path.is_empty()).map(PathBuf::from),
        work: work.map_or_else(|| bundle.join("work"), PathBuf::from),
    }
}
