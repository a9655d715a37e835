//! Allocators other than glibc's, against what they say of themselves. Each is optional: a kernel has
//! nothing to do with it, and a machine may not have it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;

use super::{number, report};
use crate::driver::{scratch, this, trial_or_ignored};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial_or_ignored("heap::jemalloc_holds_what_it_says", jemalloc),
        trial_or_ignored("heap::tcmalloc_holds_what_it_says", tcmalloc),
        trial_or_ignored("heap::musl_holds_what_was_freed", musl),
        trial_or_ignored("heap::pymalloc_holds_what_it_says", pymalloc),
        trial_or_ignored("heap::go_holds_what_it_says", go),
        trial_or_ignored("heap::what_zgc_uncommits_is_back_with_the_kernel", zgc),
    ]
}

/// Where distributions put libraries.
const FOLDERS: [&str; 3] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"];

fn library(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

/// A program that waits for the end of its input, after it said what it holds.
struct Program {
    child: Child,
    lines: Vec<String>,
}

impl Program {
    /// Starts it and reads what it says, up to an empty line.
    fn start(command: &mut Command) -> Result<Self, Failed> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let lines = stdout.lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let lines = lines.collect();
        Ok(Self { child, lines })
    }

    /// Returns the numbers in the line that has some words.
    fn numbers(&self, words: &str) -> Result<Vec<u64>, Failed> {
        let line = self.lines.iter().find(|line| line.contains(words));
        let line = line.ok_or_else(|| format!("no {words:?} in {:?}", self.lines))?;
        let line = line.replace(',', "");
        Ok(line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
    }

    /// Returns what memtrace says of one of its allocators.
    fn allocator(&self, name: &str) -> Result<Value, Failed> {
        let process = report(self.child.id(), &["--exact"])?;
        let found = process["allocators"].as_array().into_iter().flatten();
        let found = found.clone().find(|allocator| allocator["name"] == name);
        found.cloned().ok_or_else(|| format!("no {name}: {process}").into())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fails when a figure is off by more than a thousandth.
fn same(what: &str, ours: u64, theirs: u64, whole: u64) -> Result<(), Failed> {
    if ours.abs_diff(theirs) > whole / 1000 {
        return Err(format!("{what}: {ours}, not {theirs} of {whole}").into());
    }
    Ok(())
}

/// This binary with another malloc, if it can have one.
fn preloaded(name: &str, settings: &[(&str, &str)]) -> Result<Result<Program, Completion>, Failed> {
    let Some(library) = library(name) else {
        return Ok(Err(Completion::ignored_with(format!("optional: there is no {name}"))));
    };
    let mut command = Command::new(this());
    command.args(["--workload", "heap", "stats"]).env("LD_PRELOAD", library);
    let program = Program::start(command.envs(settings.iter().copied()))?;
    if program.lines == ["static"] {
        return Ok(Err(Completion::ignored_with(
            "optional: a static program takes no other malloc",
        )));
    }
    Ok(Ok(program))
}

fn jemalloc() -> Result<Completion, Failed> {
    // What is dirty stays so.
    let settings = [("MALLOC_CONF", "dirty_decay_ms:-1,muzzy_decay_ms:-1")];
    let program = match preloaded("libjemalloc.so.2", &settings)? {
        Ok(program) => program,
        Err(ignored) => return Ok(ignored),
    };
    let &[mapped, dirty_pages] = program.numbers("jemalloc")?.as_slice() else {
        return Err(format!("{:?}", program.lines).into());
    };
    let ours = program.allocator("jemalloc")?;
    same("mapped", number(&ours["system"]), mapped, mapped)?;
    same("dirty", number(&ours["free"]["dirty"]), dirty_pages * 4096, mapped)?;
    // Fifteen of sixteen chunks were freed, and lie in slabs or whole pages.
    let free = number(&ours["free"]["slab_regions"]) + number(&ours["free"]["dirty"]);
    if free < 30 << 20 {
        return Err(format!("only {free} are free: {ours}").into());
    }
    Ok(Completion::Completed)
}

fn tcmalloc() -> Result<Completion, Failed> {
    let program = match preloaded("libtcmalloc_minimal.so.4", &[])? {
        Ok(program) => program,
        Err(ignored) => return Ok(ignored),
    };
    let &[heap, in_use] = program.numbers("tcmalloc")?.as_slice() else {
        return Err(format!("{:?}", program.lines).into());
    };
    let ours = program.allocator("tcmalloc")?;
    same("heap", number(&ours["system"]), heap, heap)?;
    same("in use", number(&ours["in_use"]), in_use, heap)?;
    Ok(Completion::Completed)
}

/// Takes many chunks that fill their slots (whose sizes are those of mallocng's classes), frees four of
/// five, and says how many bytes of slots are in use, and free.
const MUSL: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static void *p[200000];
static const int class[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 31, 36, 42, 50, 63 };
int main(void) {
    size_t i, used = 0, freed = 0;
    for (i = 0; i < 200000; i++) p[i] = malloc(16 * class[i % 20] - 4), *(char *)p[i] = 1;
    for (i = 0; i < 200000; i++)
        if (i / 20 % 5) free(p[i]), freed += 16 * class[i % 20];
        else used += 16 * class[i % 20];
    printf("used %zu freed %zu\n\n", used, freed);
    fflush(stdout);
    getchar();
}
"#;

fn musl() -> Result<Completion, Failed> {
    let (source, program) = (scratch("musl.c"), scratch("musl"));
    fs::write(&source, MUSL)?;
    let compiled =
        Command::new("musl-gcc").args(["-O1", "-static", "-o"]).args([&program, &source]).status();
    fs::remove_file(&source)?;
    if !compiled.is_ok_and(|status| status.success()) {
        return Ok(Completion::ignored_with("optional: there is no musl-gcc"));
    }
    let started = Program::start(&mut Command::new(&program));
    fs::remove_file(&program)?;
    let program = started?;
    let &[used, freed] = program.numbers("used")?.as_slice() else {
        return Err(format!("{:?}", program.lines).into());
    };
    let ours = program.allocator("musl")?;
    let (in_use, slots) = (number(&ours["in_use"]), number(&ours["free"]["slots"]));
    // The last group of each class has slots that nobody had yet; in use are musl's books, too.
    let all = used + freed;
    if !(freed..freed + freed / 200).contains(&slots) || !(used..used + all / 20).contains(&in_use)
    {
        return Err(format!("{used} are in use, {freed} were freed: {ours}").into());
    }
    Ok(Completion::Completed)
}

fn pymalloc() -> Result<Completion, Failed> {
    const PROGRAM: &str = "import sys\n\
                           x = [(i, str(i)) for i in range(200000)]\n\
                           del x[::2], x[:10000]\n\
                           sys.stderr = sys.stdout\n\
                           sys._debugmallocstats()\n\
                           sys.stdout.write('end\\n\\n')\n\
                           sys.stdout.flush()\n\
                           sys.stdin.read()\n";
    let mut command = Command::new("python3");
    command
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return Ok(Completion::ignored_with("optional: there is no python3"));
    };
    // The figures come on the real stderr, all of them before the line on stdout.
    let mut stderr = child.stderr.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
        while let Ok(len @ 1..) = stderr.read(&mut bytes) {
            text.extend_from_slice(&bytes[..len]);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
    let mut program = Program { child, lines: Vec::new() };
    let ours = program.allocator("pymalloc")?;
    drop(program.child.stdin.take());
    let text = reader.join().map_err(|_| "the reader of stderr failed")?;
    program.lines = text.lines().map(str::to_owned).collect();

    let blocks = program.numbers("# bytes in available blocks")?[0];
    let unused = program.numbers("unused pools *")?;
    let arenas = program.numbers("bytes/arena")?;
    let system = *arenas.last().ok_or("no arenas")?;
    same("system", number(&ours["system"]), system, system)?;
    same("blocks", number(&ours["free"]["blocks"]), blocks, system)?;
    let pools = *unused.last().ok_or("no pools")?;
    same("pools", number(&ours["free"]["pools"]), pools, system)?;
    if blocks < 1 << 20 {
        return Err(format!("only {blocks} are free").into());
    }
    Ok(Completion::Completed)
}

/// Takes small and large objects, drops most of them, lets the scavenger come to rest, and says what
/// `runtime.MemStats` does.
const GO: &str = r#"
package main
import ("os"; "runtime"; "strconv"; "time")
var small, large [][]byte
func main() {
    for i := 0; i < 200000; i++ {
        small = append(small, make([]byte, 16 << (i % 7)))
        if i % 2000 == 0 { large = append(large, make([]byte, 300000)) }
    }
    for i := range small { if i % 5 != 0 { small[i] = nil } }
    for i := range large { if i % 4 != 0 { large[i] = nil } }
    runtime.GC()
    runtime.GC()
    var m runtime.MemStats
    for released := uint64(1); released != m.HeapReleased; time.Sleep(2 * time.Second) {
        released = m.HeapReleased
        runtime.ReadMemStats(&m)
    }
    line := "go "
    for _, n := range []uint64{m.HeapInuse, m.StackInuse, m.HeapIdle - m.HeapReleased, m.HeapAlloc} {
        line += strconv.FormatUint(n, 10) + " "
    }
    os.Stdout.WriteString(line + "\n\n")
    os.Stdin.Read(make([]byte, 1))
    runtime.KeepAlive(small)
    runtime.KeepAlive(large)
}
"#;

fn go() -> Result<Completion, Failed> {
    let (source, program, cache) = (scratch("prog.go"), scratch("prog"), scratch("go-cache"));
    fs::write(&source, GO)?;
    // Without symbols.
    let compiled = Command::new("go")
        .args(["build", "-ldflags=-s -w", "-o"])
        .args([&program, &source])
        .envs([("GO111MODULE", "off"), ("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local")])
        .env("GOCACHE", &cache)
        .status();
    fs::remove_file(&source)?;
    let _ = fs::remove_dir_all(&cache);
    if !compiled.is_ok_and(|status| status.success()) {
        return Ok(Completion::ignored_with("optional: there is no go"));
    }
    let started = Program::start(&mut Command::new(&program));
    fs::remove_file(&program)?;
    let program = started?;
    let &[heap, stacks, idle, allocated] = program.numbers("go")?.as_slice() else {
        return Err(format!("{:?}", program.lines).into());
    };
    let ours = program.allocator("go")?;
    let free = |class: &str| number(&ours["free"][class]);
    let given_up = free("idle") + free("page_caches") + free("released_resident");
    // What the collector needs while it marks has spans, too.
    same("in use", number(&ours["system"]) - given_up, heap + stacks, 4 * heap)?;
    same("idle", free("idle") + free("page_caches"), idle, heap)?;
    // What is left behind the last slot of a span, or holds bits there, is in use for us.
    let (most, slots) = (heap - allocated, free("span_slots"));
    if slots > most + heap / 1000 || slots < most - most / 20 {
        return Err(format!("{slots} of slots are free, not {most}: {ours}").into());
    }
    Ok(Completion::Completed)
}

/// Fills 200 MiB, drops them, and has them collected; with `true`, waits until the collector gave them
/// back. Says what it has committed at the end.
const ZGC: &str = r#"
import java.lang.management.*;
class Uncommit {
    static byte[][] held = new byte[200][];
    static long committed() {
        long sum = 0;
        for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans())
            if (pool.getName().startsWith("Z")) sum += pool.getUsage().getCommitted();
        return sum;
    }
    public static void main(String[] arguments) throws Exception {
        for (int i = 0; i < held.length; i++) held[i] = new byte[1 << 20];
        held = null;
        System.gc();
        while (arguments[0].equals("true") && committed() > 64L << 20) Thread.sleep(10);
        System.gc();
        System.out.println("committed " + committed() + "\n");
        System.in.read();
    }
}
"#;

/// What is collected is free for Java only, until it is uncommitted.
fn zgc() -> Result<Completion, Failed> {
    if !Command::new("javac").arg("-version").output().is_ok_and(|output| output.status.success()) {
        return Ok(Completion::ignored_with("optional: there is no javac"));
    }
    let source = scratch("Uncommit.java");
    fs::write(&source, ZGC)?;
    let looked = [false, true].map(|uncommits| -> Result<_, Failed> {
        let mut command = Command::new("java");
        command.args(["-XX:+UseZGC", "-Xms16m", "-Xmx512m", "-XX:ZUncommitDelay=1"]);
        command.arg(format!("-XX:{}ZUncommit", if uncommits { '+' } else { '-' }));
        let program = Program::start(command.arg(&source).arg(uncommits.to_string()))?;
        let committed = program.numbers("committed")?[0];
        let process = report(program.child.id(), &[])?;
        Ok((committed, program.allocator("jvm")?, process))
    });
    fs::remove_file(&source)?;
    for (uncommits, looked) in [false, true].into_iter().zip(looked) {
        let (committed, jvm, process) = looked?;
        let free = number(&jvm["free"]["old"]);
        let resident = number(&process["memory"]["resident_by_kind"]["shmem"]);
        // Its metaspace is part of it, too.
        let is_right = (committed..committed + (32 << 20)).contains(&number(&jvm["system"]))
            && (resident < 100 << 20) == uncommits
            && (free < 100 << 20) == uncommits;
        if !is_right {
            return Err(format!("uncommits: {uncommits}, {committed}, {resident}: {jvm}").into());
        }
    }
    Ok(Completion::Completed)
}
