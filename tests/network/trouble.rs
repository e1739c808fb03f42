//! Trouble gives one clear line (what, where, what to do) and loses nothing.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::lonely::{Lonely, PATIENCE, Running, free, listens};
use crate::{perturb, program, text};

/// The line of an error, which says all of `words`.
fn says(said: &str, words: &[&str]) {
    let told = said.lines().any(|line| words.iter().all(|w| line.contains(w)));
    assert!(told, "no line with {words:?} in:\n{said}");
}

#[test]
fn a_port_in_use_is_named_with_the_option_that_changes_it() {
    let net = Lonely::new();
    for flag in ["--rpc-listen", "--http-listen", "--p2p-listen"] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap().to_string();
        // The network writes addresses its own way: the port is in all of them.
        says(&net.start(&[(flag, &at)]).failure(), &[at.split(':').next_back().unwrap(), flag]);
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let chain = Command::new(program("perturb-devchain"))
        .args(["--rpc-port", at.split(':').next_back().unwrap()])
        .output()
        .unwrap();
    assert!(!chain.status.success());
    says(&text(&chain), &[&at]);
}

#[test]
fn a_folder_in_use_or_of_another_network_is_refused() {
    let net = Lonely::new();
    let mut first = net.start(&[]);
    let height = net.until_height(&mut first, 0);
    let rpc = free().to_string();
    let data = net.data.display().to_string();
    says(&net.start(&[("--rpc-listen", &rpc)]).failure(), &[&data, "in use"]);
    assert!(net.until_height(&mut first, height) > height, "the first goes on");
    drop(first);
    net.be_of_subnet(3);
    says(&net.start(&[]).failure(), &[&data, "network"]);
    net.be_of_subnet(2);
    net.until_height(&mut net.start(&[]), height);
}

#[test]
fn a_damaged_database_or_guard_is_refused_and_nothing_is_thrown_away() {
    let net = Lonely::new();
    let mut first = net.start(&[]);
    let height = net.until_height(&mut first, 5);
    drop(first);
    let spoil = |file: &std::path::Path, bytes: &[u8], words: &[&str]| {
        let whole = fs::read(file).unwrap();
        fs::write(file, bytes).unwrap();
        let said = net.start(&[]).failure();
        says(&said, words);
        assert_eq!(fs::read(file).unwrap(), bytes, "the damaged file stays as it is");
        fs::write(file, whole).unwrap();
    };
    let data = net.data.display().to_string();
    spoil(&net.data.join("database/CURRENT"), b"nonsense", &[&data, "keep `signing-guard`"]);
    spoil(&net.data.join("signing-guard"), b"", &[&data, "damaged", "retire the key"]);
    let guard = net.data.join("signing-guard");
    let whole = fs::read(&guard).unwrap();
    fs::remove_file(&guard).unwrap();
    says(&net.start(&[]).failure(), &[&data, "signing guard"]);
    assert!(!guard.exists(), "a lost guard is never made anew");
    fs::write(&guard, whole).unwrap();
    net.until_height(&mut net.start(&[]), height);
}

/// Runs a shell script in a mount namespace of its own, with `$1`, `$2`, ... as given.
fn with_mounts(script: &str, args: &[String]) -> Command {
    let mut command = Command::new("unshare");
    // Somebody who is not root maps itself to it.
    let root = fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)).unwrap() == 0;
    command.args(if root { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] });
    command.args(["sh", "-ec", script, "sh"]).args(args);
    command
}

#[test]
fn a_full_disk_halts_the_node_and_loses_nothing() {
    let net = Lonely::new();
    let data = net.data.join("small");
    fs::create_dir(&data).unwrap();
    // $1 is the folder on the small disk, $2 a pipe of commands; the rest is the validator's command.
    // The disk lives as long as the shell: fill it, free it, start again.
    let script = r#"
        disk=$1; key=$2; shift 2
        mount -t tmpfs -o size=64m tmpfs "$disk"
        cp -p "$key" "$disk/consensus-key"
        "$@" & node=$!
        read _
        cat /dev/zero > "$disk/filler" 2>/dev/null || true
        if wait $node; then echo "ENDED WELL"; else echo "HALTED"; fi
        rm "$disk/filler"
        "$@" & node=$!
        read _ || true
        kill $node; wait $node || true
    "#;
    let mut args = vec![data.display().to_string(), net.data.join("consensus-key").display().to_string()];
    args.push(program("perturb").display().to_string());
    args.extend(net.args(&data, &[]));
    let mut command = with_mounts(script, &args);
    Lonely::environment(&mut command).stdin(std::process::Stdio::piped());
    let mut shell = Running::spawn(&mut command);
    let mut input = shell.child.stdin.take().unwrap();
    let height = net.until_height(&mut shell, 5);
    use std::io::Write;
    writeln!(input, "full").unwrap();
    let start = std::time::Instant::now();
    while listens(net.rpc) {
        assert!(start.elapsed() < PATIENCE, "it goes on without a disk");
    }
    // Space again: it goes on behind where it was.
    assert!(net.until_height(&mut shell, height) > height);
    writeln!(input, "enough").unwrap();
    drop(input);
    let out = shell.output();
    says(&out, &["HALTED"]);
    says(&out, &["No space left on device", &data.display().to_string()]);
    assert!(!out.contains("panicked"), "{out}");
}

#[test]
fn a_signal_ends_a_validator_well() {
    let net = Lonely::new();
    let mut running = net.start(&[]);
    net.until_height(&mut running, 2);
    assert!(Command::new("kill").args(["-TERM", &running.child.id().to_string()]).status().unwrap().success());
    let status = running.child.wait().unwrap();
    assert!(status.success(), "{status}: {}", running.output());
}

#[test]
fn a_missing_libtorch_is_named_by_the_loader() {
    let out = Command::new("ldd").arg(program("perturb")).output().unwrap();
    let libraries = text(&out);
    let torch = libraries.lines().find(|l| l.contains("libtorch_cpu.so")).expect("perturb is linked to libtorch");
    let folder = std::path::Path::new(torch.split_whitespace().nth(2).unwrap()).parent().unwrap();
    let script = r#"mount -t tmpfs tmpfs "$1"; shift; exec "$@""#;
    let args = [folder.display().to_string(), program("perturb").display().to_string(), "--version".into()];
    let out = with_mounts(script, &args).output().unwrap();
    assert!(!out.status.success());
    says(&text(&out), &["perturb", "libtorch", "No such file or directory"]);
}

#[test]
fn a_model_file_that_does_not_fit_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let good = include_bytes!("../../model/weights/demo.safetensors").to_vec();
    let mut named_otherwise = good.clone();
    let at = good.windows(10).position(|w| w == b"features.0").unwrap();
    named_otherwise[at] = b'F';
    let mut endless_header = good.clone();
    endless_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut not_a_number = good.clone();
    let end = good.len();
    not_a_number[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let cases = [
        ("empty", vec![]),
        ("cut", good[..good.len() / 2].to_vec()),
        ("longer", [good.clone(), vec![0; 4]].concat()),
        ("renamed", named_otherwise),
        ("endless-header", endless_header),
        ("not-a-number", not_a_number),
        ("text", b"these are no weights".to_vec()),
    ];
    for (name, bytes) in cases {
        let file = dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        let path = file.to_str().unwrap();
        let out = perturb(&["model", "inspect", path]).output().unwrap();
        let said = text(&out);
        assert!(!out.status.success() && !said.contains("panicked"), "{name}: {said}");
        says(&said, &[path, "perturb-demo-cnn-1"]);
        assert_eq!(said.trim().lines().count(), 1, "{said}");
    }
    let absent = dir.path().join("absent");
    says(&text(&perturb(&["model", "inspect", absent.to_str().unwrap()]).output().unwrap()), &["absent"]);
}

/// A PNG header of so many pixels, with nothing behind it.
fn header_only(width: u32, height: u32) -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    out.extend(width.to_be_bytes());
    out.extend(height.to_be_bytes());
    out.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    out
}

#[test]
fn hostile_images_are_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("huge.png", header_only(30_000, 30_000), "30000×30000"),
        ("cut.png", header_only(64, 64), "ends inside"),
        ("photo.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF".to_vec(), "not a PNG"),
        ("empty.png", vec![], "not a PNG"),
    ];
    for (name, bytes, why) in cases {
        let file = dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        let path = file.to_str().unwrap();
        let out = perturb(&["score", path, path, "--time-ms", "100"]).output().unwrap();
        let said = text(&out);
        assert!(!out.status.success() && !said.contains("panicked"), "{said}");
        says(&said, &[path, why]);
        assert_eq!(said.trim().lines().count(), 1, "{said}");
    }
}
