//! Files that are core files, and files that are none.

use super::*;

/// The head of an ELF file: class, byte order, kind, machine.
fn elf(class: u8, order: u8, kind: u8, machine: u8) -> Vec<u8> {
    let mut head = vec![0; 64];
    head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
    (head[16], head[18], head[54]) = (kind, machine, 56);
    head
}

#[test]
fn a_core_file_is_one_of_a_64_bit_program_of_ours() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("core");
    let name = file.display();
    let cut_short = "it is cut short: it ends in its headers";
    let mut large = elf(2, 1, 4, 62);
    (large[32], large[56]) = (64, 1);
    let whole = [&large[..], &[0; 56]].concat();
    for (bytes, why) in [
        (Vec::new(), "it is empty"),
        (b"#!/bin/sh\n".to_vec(), "it is not an ELF file"),
        (b"\x7fEL".to_vec(), "it is not an ELF file"),
        (b"\x28\xb5\x2f\xfd\0".to_vec(), "it is compressed"),
        (fs::read(MEMTRACE).expect("it is there"), "it is an ELF file, but no core file"),
        (elf(1, 1, 4, 3), "it is the core file of a 32-bit program"),
        (elf(2, 1, 4, 183), "it is the core file of another architecture than x86-64"),
        (elf(2, 1, 4, 62)[..40].to_vec(), cut_short),
        (large, cut_short),
        (whole, "it holds no memory of a process"),
    ] {
        fs::write(&file, bytes).expect("there is room");
        let command = memtrace([OsStr::new("report"), "--core".as_ref(), file.as_ref()]);
        assert_eq!(refused(command, 1), format!("cannot look at {name}: {why}"));
    }
    fs::remove_file(&file).expect("it is ours");
    let sentence = refused(memtrace(["report", "--core", &name.to_string()]), 1);
    assert!(sentence.starts_with(&format!("cannot look at {name}: No such file")), "{sentence}");
}

#[test]
fn what_is_no_regular_file_is_no_core_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("it is new");
    for path in [folder.path(), &pipe, Path::new("/dev/zero")] {
        let command = memtrace([OsStr::new("report"), "--core".as_ref(), path.as_ref()]);
        let expected = format!("cannot look at {}: it is not a regular file", path.display());
        assert_eq!(refused(command, 1), expected);
    }
}

#[test]
fn a_core_file_of_someone_else_is_not_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = copied(MEMTRACE, folder.path());
    let core = folder.path().join("core");
    fs::write(&core, "").expect("there is room");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::set_permissions(&core, fs::Permissions::from_mode(0o0)).expect("it is ours");
    let core = core.display().to_string();
    let sentence = refused(unprivileged(&program, &["report", "--core", &core]), 1);
    assert!(sentence.starts_with(&format!("cannot look at {core}: Permission denied")));
}
