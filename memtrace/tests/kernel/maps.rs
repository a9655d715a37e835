//! The region map against `/proc/PID/maps`.

use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use memtrace::source::procfs;

use super::driver::{Attached, Report, Started, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("maps::fifty_threads_end_in_the_kernels_map", || churned(&[], 50)),
        trial("maps::a_map_that_lost_records_is_right_again", lossy),
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
    if window["dropped"] == 0 || window["complete"] != false || window["resyncs"] == 0 {
        return Err(format!("a buffer of 4 KiB should have been too small: {window}").into());
    }
    same_map(&report, workload.pid())
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
