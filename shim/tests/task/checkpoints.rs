//! Checkpoint, and Create from one.

use super::{change_config, end, with_shim};
use crate::support::*;
use cofferdam_proto::{Any, Empty, Message, events, runc_options, task};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Counts in a file, and never ends; its streams are nobody's.
const COUNT: &str =
    "n=0; while :; do n=$((n + 1)); echo $n >/count.new; cat /count.new >/count; sleep 0.05; done";

fn request(
    image: &Path,
    change: impl FnOnce(&mut runc_options::CheckpointOptions),
) -> task::CheckpointTaskRequest {
    let mut options = runc_options::CheckpointOptions::default();
    change(&mut options);
    let any = Any {
        type_url: "containerd.runc.v1.CheckpointOptions".into(),
        value: options.write_to_bytes().unwrap(),
        ..Default::default()
    };
    task::CheckpointTaskRequest {
        id: "web".into(),
        path: image.to_string_lossy().into_owned(),
        options: Some(any).into(),
        ..Default::default()
    }
}

fn count(lab: &Lab) -> u32 {
    let text = fs::read_to_string(lab.dir.join("web/rootfs/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// A container that counts, and a folder for images; none, and why, without CRIU.
fn counting(name: &str, script: &str) -> Option<(Lab, Client, PathBuf)> {
    if let Some(reason) = criu_is_missing() {
        skip(&reason);
        return None;
    }
    let (lab, mut client) = with_shim(name, &Setup::shell(script))?;
    let image = lab.dir.join("image");
    fs::create_dir(&image).unwrap();
    // CRIU locks packets out with these tools.
    if which("iptables-restore").is_none() || which("ip6tables-restore").is_none() {
        let file = lab.dir.join("criu.conf");
        fs::write(&file, "network-lock skip\n").unwrap();
        change_config(&lab, "web", |config| config["annotations"]["org.criu.config"] = file.to_str().into());
    }
    client.create(&lab.create_request("web")).unwrap();
    client.start("web", "").unwrap();
    until("the container counts", || count(&lab) > 2);
    Some((lab, client, image))
}

#[test]
fn a_container_is_saved_ends_and_goes_on_where_it_stood() {
    let Some((lab, mut client, image)) = counting("restore", COUNT) else { return };
    let _: Empty = client.call("Checkpoint", &request(&image, |options| options.exit = true)).unwrap();
    assert_eq!(client.wait("web", ""), Ok(137), "it has ended with its checkpoint");
    let stood = count(&lab);
    assert_eq!(client.delete("web", ""), Ok(137));
    let mut topics = lab.events.wait_for(5);
    // CRIU kills it before anybody can say that it is saved.
    topics[2..4].sort();
    assert_eq!(topics, ["create", "start", "checkpointed", "exit init 137", "delete"]);
    let saved: events::TaskCheckpointed = lab.events.find("checkpointed");
    assert_eq!((saved.container_id.as_str(), Path::new(&saved.checkpoint)), ("web", image.as_path()));

    let mut create = lab.create_request("web");
    create.checkpoint = image.to_string_lossy().into_owned();
    assert_eq!(client.create(&create), Ok(0), "nothing runs before its start");
    let state = client.state("web", "").unwrap();
    assert_eq!((state.pid, state.status.enum_value()), (0, Ok(task::Status::CREATED)));
    assert_eq!(
        client.exec(&lab, "web", "e", &["true"]).unwrap_err(),
        (2, "cannot exec in a created state".into())
    );
    let pid = client.start("web", "").unwrap();
    assert!(pid > 0);
    until("it counts on", || count(&lab) > stood);
    assert!(count(&lab) < stood + 1000, "it began anew");
    let state = client.state("web", "").unwrap();
    assert_eq!((state.pid, state.status.enum_value()), (pid, Ok(task::Status::RUNNING)));
    client.exec(&lab, "web", "e", &["sh", "-c", "exit 5"]).unwrap();
    client.start("web", "e").unwrap();
    assert_eq!(client.wait("web", "e"), Ok(5));
    end(&lab, &mut client);
    let topics = lab.events.wait_for(12);
    let again = ["create", "start", "exec-added e", "exec-started e", "exit e 5", "exit init 137", "delete"];
    assert_eq!(topics[5..], again);
    let restored: Vec<events::TaskCreate> = lab.events.all("create");
    assert_eq!(restored[1].checkpoint, create.checkpoint);
}

#[test]
fn a_container_goes_on_behind_its_checkpoint() {
    let Some((lab, mut client, image)) = counting("leave", COUNT) else { return };
    let _: Empty = client.call("Checkpoint", &request(&image, |_| ())).unwrap();
    let stood = count(&lab);
    until("it counts on", || count(&lab) > stood);
    assert!(image.join("inventory.img").exists());
    assert_eq!(client.state("web", "").unwrap().status.enum_value(), Ok(task::Status::RUNNING));
    assert_eq!(lab.events.wait_for(3), ["create", "start", "checkpointed"]);
    end(&lab, &mut client);
}

#[test]
fn a_checkpoint_that_fails_is_told_with_its_log() {
    // Who counts has a connection, of which CRIU must be told that it may save it.
    let script =
        format!("nc -l -p 8000 -e sleep 1000 & until nc 127.0.0.1 8000 -e sh -c '{COUNT}'; do :; done");
    let Some((lab, mut client, image)) = counting("nocheckpoint", &script) else { return };
    let (code, message) = client.call::<Empty>("Checkpoint", &request(&image, |_| ())).unwrap_err();
    let log = lab.dir.join("web/criu-dump.log");
    assert_eq!(code, 2);
    assert!(
        message.starts_with("OCI runtime checkpoint failed: ")
            && message.ends_with(&format!("path= {}", log.display())),
        "{message}"
    );
    assert!(fs::read_to_string(log).unwrap().contains("tcp-established"), "CRIU's own log is kept");
    let stood = count(&lab);
    until("it counts on", || count(&lab) > stood);
    assert_eq!(lab.events.topics(), ["create", "start"]);
    end(&lab, &mut client);
}

#[test]
fn a_checkpoint_that_cannot_be_restored_leaves_nothing() {
    let Some((lab, mut client, image)) = counting("norestore", COUNT) else { return };
    let _: Empty = client.call("Checkpoint", &request(&image, |options| options.exit = true)).unwrap();
    client.wait("web", "").unwrap();
    client.delete("web", "").unwrap();
    fs::remove_file(image.join("inventory.img")).unwrap();
    let mut create = lab.create_request("web");
    create.checkpoint = image.to_string_lossy().into_owned();
    client.create(&create).unwrap();
    let (code, message) = client.start("web", "").unwrap_err();
    assert!(code == 2 && message.starts_with("OCI runtime restore failed: "), "{message}");
    client.delete("web", "").unwrap();
    client.shutdown("web");
    lab.assert_nothing_left();
}
