//! Which files a program will load when it starts, as its dynamic linker says without starting it
//! (`ld.so --list`, ld.so(8)).

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use object::{
    Endianness,
    read::{
        ReadCache,
        elf::{ElfFile64, ProgramHeader as _},
    },
};

/// Scripts may have scripts as their interpreters (`BINPRM_MAX_RECURSION`, fs/exec.c, 6.18).
const MOST_SCRIPTS: usize = 5;

/// Returns the program and its libraries, in the order in which symbols are looked up; of a script
/// those of its interpreter. What cannot be found out is left out.
pub fn loaded_files(program: &Path) -> Vec<PathBuf> {
    let mut program = program.to_owned();
    for _ in 0..MOST_SCRIPTS {
        match script_interpreter(&program) {
            Some(interpreter) => program = interpreter,
            None => break,
        }
    }
    let linker = dynamic_linker(&program).filter(|linker| is_trusted(linker));
    let libraries = linker.map(|linker| list(&linker, &program)).unwrap_or_default();
    std::iter::once(program).chain(libraries).collect()
}

fn script_interpreter(path: &Path) -> Option<PathBuf> {
    // `BINPRM_BUF_SIZE` (include/uapi/linux/binfmts.h)
    let mut line = Vec::new();
    let mut file = BufReader::new(File::open(path).ok()?.take(256));
    file.read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8(line).ok()?;
    line.strip_prefix("#!")?.split_ascii_whitespace().next().map(PathBuf::from)
}

fn dynamic_linker(program: &Path) -> Option<PathBuf> {
    let cache = ReadCache::new(File::open(program).ok()?);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
    let mut headers = elf.elf_program_headers().iter();
    let path = headers.find_map(|header| header.interpreter(elf.endian(), &cache).ok()?)?;
    String::from_utf8(path.to_vec()).ok().map(PathBuf::from)
}

/// It is run with our rights, which may be more than the program will have.
fn is_trusted(linker: &Path) -> bool {
    fs::metadata(linker).is_ok_and(|file| file.uid() == 0 && file.permissions().mode() & 0o022 == 0)
}

fn list(linker: &Path, program: &Path) -> Vec<PathBuf> {
    let mut command = Command::new(linker);
    command.arg("--list").arg(program).stdin(Stdio::null());
    match command.output() {
        Ok(output) => libraries(&String::from_utf8_lossy(&output.stdout)),
        Err(error) => {
            log::info!("cannot ask {} what it would load: {error}", linker.display());
            Vec::new()
        }
    }
}

/// Reads lines such as `libc.so.6 => /lib/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn libraries(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let (path, _) = line.trim().rsplit_once(" (0x")?;
        let path = path.split_once(" => ").map_or(path, |(_, path)| path);
        path.starts_with('/').then(|| path.into())
    };
    text.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_file_or_nothing() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd0)\n\tlibm.so.6 => /lib/lib m.so.6 (0x00007f0)\n\
                    \tlibx.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f1)\nstatically linked\n";
        let paths: Vec<PathBuf> =
            vec!["/lib/lib m.so.6".into(), "/lib64/ld-linux-x86-64.so.2".into()];
        assert_eq!(libraries(text), paths);
    }

    #[test]
    fn a_dynamic_program_loads_a_libc() {
        let program = std::env::current_exe().expect("our own path");
        let files = loaded_files(&program);
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        assert_eq!(files[0], program);
        assert!(names.iter().any(|name| name.contains("/libc.")), "{names:?}");
    }

    #[test]
    fn a_script_loads_what_its_interpreter_does() {
        let script = std::env::temp_dir().join(format!("memtrace-script-{}", std::process::id()));
        fs::write(&script, "#! /bin/sh -e\nexit\n").expect("a file");
        let files = loaded_files(&script);
        fs::remove_file(&script).expect("it is there");
        assert_eq!(files[0], Path::new("/bin/sh"));
    }
}
