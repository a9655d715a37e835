//! What went to swap and came back. A host's swap is used as it is; a disk is made one only where the
//! environment says that it is there for that, as in the machines of `cargo xtask vm`.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use libtest_mimic::{Failed, Trial};

use super::{
    super::{
        driver::{PAGE, Report, run, trial},
        paths::N,
    },
    FEW, check, counts_frames,
    fills::Filled,
    living, pages,
};

/// Names a disk that may be overwritten.
const DISK: &str = "MEMTRACE_SWAP";

pub(super) fn trials() -> Vec<Trial> {
    if std::env::var_os(DISK).is_none() && !has_swap() {
        return vec![trial("afterlife::without_swap_nothing_is_paged_out", without)];
    }
    let mut trials = vec![
        trial("afterlife::what_went_to_swap_and_came_back_is_counted", with),
        trial("afterlife::what_comes_from_swap_is_no_copy", copies),
        trial("afterlife::what_pressure_pushes_out_is_read_back", pushed_out),
    ];
    if !has_swap() {
        trials.push(trial("afterlife::without_swap_nothing_is_paged_out", without));
    }
    trials
}

/// Tells whether the kernel has swap now.
fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
}

/// Swap, for as long as this lives.
struct Swap {
    disk: Option<CString>,
}

impl Swap {
    /// Makes the disk that is there for it a swap, unless there is one.
    fn on() -> Result<Self, Failed> {
        let Some(disk) = std::env::var(DISK).ok().filter(|_| !has_swap()) else {
            return Ok(Self { disk: None });
        };
        // The kernel looks for disks on the side.
        let deadline = Instant::now() + Duration::from_secs(60);
        while !Path::new(&disk).exists() {
            if Instant::now() > deadline {
                return Err(format!("there is no disk {disk}").into());
            }
            std::thread::yield_now();
        }
        let mut file = File::options().read(true).write(true).open(&disk)?;
        let last_page = file.seek(SeekFrom::End(0))? / PAGE - 1;
        // `union swap_header` (include/linux/swap.h): version and last page after the boot block,
        // the magic at the end of the page.
        let mut header = [0_u8; PAGE as usize];
        header[1024..1028].copy_from_slice(&1_u32.to_ne_bytes());
        header[1028..1032].copy_from_slice(&u32::try_from(last_page)?.to_ne_bytes());
        header[4086..].copy_from_slice(b"SWAPSPACE2");
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
        let disk = CString::new(disk)?;
        // SAFETY: a path that lives for the whole call.
        if unsafe { libc::swapon(disk.as_ptr(), 0) } != 0 {
            return Err(format!("swapon {disk:?}: {}", io::Error::last_os_error()).into());
        }
        Ok(Self { disk: Some(disk) })
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            // SAFETY: a path that lives for the whole call.
            let done = unsafe { libc::swapoff(disk.as_ptr()) };
            assert_eq!(done, 0, "swapoff: {}", io::Error::last_os_error());
        }
    }
}

/// Has a process page out what it has and touch half of it again.
fn paged_out() -> Result<Report, Failed> {
    living("page_out", &["stopped"])
}

fn with() -> Result<(), Failed> {
    let _swap = Swap::on()?;
    let report = paged_out()?;
    let process = report.process();
    let swapped = pages(&process["memory"]["swapped"])?;
    let off = N / 100;
    if !report.counts() {
        counts_frames(&report, &[&process["swap"]["out"], &process["swap"]["in"]])?;
        return check(&[("swapped", swapped, N / 2, off)], &process["memory"]);
    }
    let pressure = &process["reclaimed"]["by_path"]["pressure"];
    let by_reason = &pressure["kept_by_reason"];
    let [zapped, freed] = [pages(&pressure["zapped"])?, pages(&pressure["freed"])?];
    let figures = [
        ("out", pages(&process["swap"]["out"])?, N, off),
        ("in", pages(&process["swap"]["in"])?, N / 2, off),
        ("swapped", swapped, N / 2, off),
        ("zapped", zapped, N, off),
        ("taken", pages(&process["madv_free"]["taken"])?, 0, 0),
        ("kept in the swap cache", pages(&by_reason["swap"])?, zapped - freed.min(zapped), 0),
        ("unknown", pages(&by_reason["unknown"])?, 0, 0),
    ];
    check(&figures, process)?;
    let Some(filled) = Filled::of(process, &report)? else { return Ok(()) };
    let copied = filled.copied.unwrap_or(0);
    check(&[("copied", copied, 0, FEW)], &process["faults"])
}

fn copies() -> Result<(), Failed> {
    let _swap = Swap::on()?;
    let report = run(&["--follow"], &["afterlife", "copies_among_swap"])?;
    report.check_books()?;
    let [_, child] = report.family()?;
    let Some(filled) = Filled::of(child, &report)? else { return Ok(()) };
    let pressure = &child["reclaimed"]["by_path"]["pressure"];
    let figures = [
        ("in", pages(&child["swap"]["in"])?, N / 8, N / 800),
        // Its parent lives, and has nothing to do with it.
        ("shared", pages(&pressure["kept_by_reason"]["shared"])?, 0, 0),
    ];
    check(&figures, child)?;
    let Some(copied) = filled.copied else { return Ok(()) };
    check(&[("copied", copied, N / 8, FEW)], child)
}

/// A child needs more than its cgroup may have.
fn pushed_out() -> Result<(), Failed> {
    let _swap = Swap::on()?;
    let report = run(&["--follow"], &["afterlife", "more_than_there_is"])?;
    report.check_books()?;
    let [_, child] = report.family()?;
    let Some(filled) = Filled::of(child, &report)? else { return Ok(()) };
    let [out, came_back] = [pages(&child["swap"]["out"])?, pages(&child["swap"]["in"])?];
    let swapped = pages(&child["memory"]["swapped"])?;
    // At its end it has twice `N` pages, of which it may have `N` and a half in memory.
    if swapped < N / 2 || came_back < N / 4 {
        return Err(format!("{out} out, {came_back} in, {swapped} left: {child}").into());
    }
    let mut figures = vec![("swapped", swapped, out.saturating_sub(came_back), N / 100)];
    figures.push(("anon", filled.anon.unwrap_or(0), 2 * N, FEW));
    figures.extend(filled.copied.map(|copied| ("copied", copied, 0, FEW)));
    check(&figures, child)
}

/// Without swap the kernel leaves anonymous pages where they are.
fn without() -> Result<(), Failed> {
    if has_swap() {
        return Err("there is swap".into());
    }
    let report = paged_out()?;
    let process = report.process();
    let memory = &process["memory"];
    let resident = pages(&memory["resident_by_kind"]["anon"])?;
    if resident < N {
        return Err(format!("{resident} pages stayed: {process}").into());
    }
    let mut figures = vec![("swapped", pages(&memory["swapped"])?, 0, 0)];
    if report.counts() {
        figures.push(("out", pages(&process["swap"]["out"])?, 0, 0));
        figures.push(("in", pages(&process["swap"]["in"])?, 0, 0));
    } else {
        counts_frames(&report, &[&process["swap"]["out"], &process["swap"]["in"]])?;
    }
    check(&figures, process)
}
