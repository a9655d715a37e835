//! The region map against `/proc/PID/maps`.

use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use memtrace::{
    follow::Follower, model::report::Evidence, probe::attach::Options, source::procfs, verify,
};
use memtrace_common::ProbeStats;

use super::driver::{Attached, Report, Started, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("maps::fifty_threads_end_in_the_kernels_map", || churned(&[], 50)),
        trial("maps::a_map_that_lost_records_is_right_again", lossy),
        trial("maps::what_is_lost_is_counted_to_the_record", overloaded),
        trial("maps::two_hundred_processes_are_attached_while_half_of_them_exit", many_processes),
        trial("maps::ten_thousand_regions_are_read_whole", || many_regions(10_000)),
        trial("maps::a_heap_that_grows_and_shrinks_is_followed", || churned(&["--follow"], 1)),
    ]
}

/// How long threads churn while they are traced.
const CHURN: Duration = Duration::from_millis(1500);

fn churned(options: &[&str], threads: u32) -> Result<(), Failed> {
    let mut workload = Started::new(&["churn", &threads.to_string()])?;
    let attached = Attached::new(options, &[workload.pid()])?;
    std::thread::sleep(CHURN);
    workload.go()?;
    workload.expect("stopped")?;
    let report = attached.stop()?;
    let window = &report.0["window"];
    // Fifty threads can be faster than one reader; the map must be right all the same.
    if threads == 1 && window["dropped"] != 0 {
        return Err(format!("records were lost: {window}").into());
    }
    same_map(&report, workload.pid())
}

fn lossy() -> Result<(), Failed> {
    let mut workload = Started::new(&["churn", "8"])?;
    let attached = Attached::new(&["--buffer", "4K"], &[workload.pid()])?;
    std::thread::sleep(CHURN);
    workload.go()?;
    workload.expect("stopped")?;
    let report = attached.stop()?;
    let window = &report.0["window"];
    // Where maps are not followed, they are read at the end anyway.
    let healed = if report.counts() { window["resyncs"].as_u64().unwrap_or(0) } else { 1 };
    if window["dropped"] == 0 || window["complete"] != false || healed == 0 {
        return Err(format!("a buffer of 4 KiB should have been too small: {window}").into());
    }
    same_map(&report, workload.pid())
}

/// Eight threads at full rate and a small buffer: drops are exact, and the map is right at the end.
fn overloaded() -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let mut workload = Started::new(&["churn", "8"])?;
    let mut follower =
        Follower::attach(Options { running: true, buffer_bytes: 64 << 10, ..Options::default() })?;
    follower.seed(workload.pid())?;
    let end = Instant::now() + CHURN;
    while Instant::now() < end {
        follower.catch_up();
        follower.heal()?;
        std::thread::sleep(Follower::TICK);
    }
    workload.go()?;
    workload.expect("stopped")?;
    follower.catch_up();
    follower.settle()?;
    follower.heal()?;
    // Names that had been lost came with the snapshot.
    follower.catch_up();
    let (ProbeStats { emitted, dropped, operations, .. }, _) = follower.counters()?;
    let (received, missing) = (follower.received(), follower.missing());
    // Drops after the last record of a CPU leave no gap.
    let counts = follower.probes().evidence() > Evidence::Args;
    let told = missing <= dropped && (missing > 0 || dropped < 100 || !counts);
    if dropped == 0 || emitted + dropped != operations || received != emitted || !told {
        return Err(format!(
            "{operations} operations, {emitted} emitted, {dropped} dropped, {received} received, \
             {missing} missing by number"
        )
        .into());
    }
    let model = follower.model();
    let process = model.living().next().ok_or("no process")?;
    let space = process.space().ok_or("no address space")?;
    let differences = verify::regions(model, space, &procfs::maps(workload.pid())?);
    if !differences.is_empty() || (counts && model.resyncs() == 0) {
        return Err(format!("{} resyncs, {differences:?}", model.resyncs()).into());
    }
    Ok(())
}

fn many_processes() -> Result<(), Failed> {
    let mut staying = Vec::new();
    let mut leaving = Vec::new();
    for number in 0..200 {
        let workload = Started::new(&["wait"])?;
        if number % 2 == 0 { &mut staying } else { &mut leaving }.push(workload);
    }
    let all: Vec<u32> =
        staying.iter().zip(&leaving).flat_map(|(one, two)| [one.pid(), two.pid()]).collect();
    let dying = leaving.iter().map(Started::pid).collect::<Vec<u32>>();
    // They exit one after the other from now on, while memtrace goes through the list.
    let ending = std::thread::spawn(move || drop(leaving));
    let path = super::driver::scratch("many.json");
    let output = std::process::Command::new(super::driver::memtrace())
        .args(["attach", "--duration", "1s", "--format", "json", "-o"])
        .arg(&path)
        .args(all.iter().map(u32::to_string))
        .output()?;
    ending.join().map_err(|_| "the ending thread")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    std::fs::remove_file(&path)?;
    let processes = report["processes"].as_array().ok_or("no processes")?;
    let reported = |pid: u32| processes.iter().find(|process| process["tgid"] == pid);
    for pid in staying.iter().map(Started::pid) {
        if reported(pid).is_none_or(|process| process["state"] != "running") {
            return Err(format!("process {pid} runs: {:?}; {said}", reported(pid)).into());
        }
    }
    for pid in dying {
        let named = said.contains(&format!("process {pid} "));
        if !named && reported(pid).is_none_or(|process| process["state"] != "exited") {
            return Err(format!("process {pid} is gone: {:?}; {said}", reported(pid)).into());
        }
    }
    Ok(())
}

fn many_regions(count: u32) -> Result<(), Failed> {
    let mut workload = Started::new(&["many_regions", &count.to_string()])?;
    let attached = Attached::new(&[], &[workload.pid()])?;
    std::thread::sleep(CHURN);
    let resident = attached.peak_resident()?;
    workload.go()?;
    workload.expect("stopped")?;
    let report = attached.stop()?;
    if resident > 64 << 20 {
        return Err(format!("memtrace took {resident} bytes").into());
    }
    same_map(&report, workload.pid())
}

/// Compares every region: start, end, permissions, and the name where the kernel shows one.
pub(crate) fn same_map(report: &Report, pid: u32) -> Result<(), Failed> {
    let maps = std::fs::read_to_string(procfs::memory_dir(pid) + "/maps")?;
    let mut kernel: Vec<(u64, u64, String)> = procfs::parse_smaps(&maps)
        .into_iter()
        .filter(|mapping| mapping.name != "[vsyscall]")
        .zip(maps.lines())
        .map(|(mapping, line)| {
            let permissions = line.split(' ').nth(1).unwrap_or_default();
            (mapping.start, mapping.end, permissions.to_owned())
        })
        .collect();
    kernel.sort();
    let hex = |value: &serde_json::Value| {
        let text = value.as_str().unwrap_or_default().trim_start_matches("0x");
        u64::from_str_radix(text, 16).map_err(|_| format!("no address: {value}"))
    };
    let mut model = Vec::new();
    for region in report.process()["regions"].as_array().ok_or("no regions")? {
        let permissions = region["prot"].as_str().unwrap_or_default().to_owned();
        model.push((hex(&region["start"])?, hex(&region["end"])?, permissions));
    }
    model.sort();
    if model == kernel {
        return Ok(());
    }
    let only = |these: &[(u64, u64, String)], those: &[(u64, u64, String)]| -> Vec<String> {
        these
            .iter()
            .filter(|row| !those.contains(row))
            .take(40)
            .map(|(start, end, permissions)| format!("{start:x}-{end:x} {permissions}"))
            .collect()
    };
    Err(format!(
        "the maps differ: {} regions and {} of the kernel; only ours: {:?}; only the kernel's: {:?}; \
         {}",
        model.len(),
        kernel.len(),
        only(&model, &kernel),
        only(&kernel, &model),
        report.0["window"]
    )
    .into())
}
