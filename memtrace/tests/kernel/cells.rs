//! Where pages are, as the page tells it, on a program whose pages are known.

use std::{fs, process::Command};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use super::{
    driver::{PAGE, Started, memtrace, scratch, trial},
    workload::{LOCATED_CHUNK, LOCATED_CHUNKS, LOCATED_PAGES},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("cells::each_page_of_a_mapping_is_told", touched),
        trial("cells::free_chunks_are_on_their_pages", freed),
    ]
}

/// What the page says of a region: its first byte, its own figures, and what is on each of its pages.
struct Region {
    start: u64,
    figures: Value,
    resident: Vec<u64>,
    free: Vec<u64>,
    swapped: Vec<u64>,
}

/// A program whose pages are known, and the page about it.
struct Located {
    process: Started,
    mapping: u64,
    chunks: u64,
    page: String,
}

impl Located {
    fn new() -> Result<Self, Failed> {
        let mut process = Started::new(&["located"])?;
        let line = process.line()?;
        let places: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let &[mapping, chunks] = places.as_slice() else {
            return Err(format!("{line:?} should be two addresses").into());
        };
        let place = scratch("located.html");
        let output = Command::new(memtrace())
            .args(["report", "--format", "html", "-o"])
            .arg(&place)
            .arg(process.pid().to_string())
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let page = fs::read_to_string(&place)?;
        fs::remove_file(&place)?;
        Ok(Self { process, mapping, chunks, page })
    }

    /// Returns the region that holds an address.
    fn region(&self, address: u64) -> Result<Region, Failed> {
        let (report, cells) = (data(&self.page, "report")?, data(&self.page, "cells")?);
        let regions = report["processes"][0]["regions"].as_array().ok_or("no regions")?;
        for (figures, cells) in regions.iter().zip(cells[0].as_array().ok_or("no cells")?) {
            let [start, end] = [&figures["start"], &figures["end"]].map(hexadecimal);
            if !(start..end).contains(&address) {
                continue;
            }
            if cells["order"] != 0 {
                return Err(format!("a small process should be told by pages: {cells}").into());
            }
            let pages = (end - start) / PAGE;
            let [resident, free, swapped] =
                [&cells["resident"], &cells["free"], &cells["swapped"]].map(|c| each(c, pages));
            return Ok(Region { start, figures: figures.clone(), resident, free, swapped });
        }
        Err(format!("{address:#x} is in no region").into())
    }
}

/// Returns what the page carries under a name.
fn data(page: &str, id: &str) -> Result<Value, Failed> {
    let (_, rest) = page.split_once(&format!("id=\"{id}\">")).ok_or("it is not there")?;
    let (json, _) = rest.split_once("</script>").ok_or("it does not end")?;
    Ok(serde_json::from_str(json)?)
}

fn hexadecimal(address: &Value) -> u64 {
    let digits = address.as_str().and_then(|text| text.strip_prefix("0x"));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

/// Returns the figure of each page.
fn each(runs: &Value, pages: u64) -> Vec<u64> {
    let numbers: Vec<u64> =
        runs.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let mut all: Vec<u64> = numbers
        .chunks_exact(2)
        .flat_map(|pair| std::iter::repeat_n(pair[1], pair[0] as usize))
        .collect();
    all.resize(pages as usize, 0);
    all
}

/// Pages that were paged out are in swap, where there is some.
fn touched() -> Result<(), Failed> {
    let located = Located::new()?;
    let region = located.region(located.mapping)?;
    let first = ((located.mapping - region.start) / PAGE) as usize;
    for page in 0..LOCATED_PAGES as usize {
        let (resident, swapped) = (region.resident[first + page], region.swapped[first + page]);
        let right = match page % 5 {
            0 => (resident, swapped) == (1, 0),
            1 => resident + swapped == 1,
            _ => (resident, swapped) == (0, 0),
        };
        if !right || region.free[first + page] != 0 {
            return Err(format!("page {page}: {resident} resident, {swapped} in swap").into());
        }
    }
    let resident: u64 = region.resident.iter().sum();
    if region.figures["resident"] != resident * PAGE {
        return Err(format!("{resident} pages are not as in {}", region.figures).into());
    }
    Ok(())
}

/// Pages that lie in a chunk as a whole are free or not; all of them sum up to the heap's figure.
fn freed() -> Result<(), Failed> {
    let mut located = Located::new()?;
    let region = located.region(located.chunks)?;
    for number in 0..LOCATED_CHUNKS {
        let start = located.chunks + number * LOCATED_CHUNK;
        let whole = start.next_multiple_of(PAGE)..(start + LOCATED_CHUNK - 16) & !(PAGE - 1);
        let wanted = if number % 2 == 0 { PAGE } else { 0 };
        for page in whole.step_by(PAGE as usize) {
            let at = ((page - region.start) / PAGE) as usize;
            let (resident, free) = (region.resident[at], region.free[at]);
            if (resident, free) != (1, wanted) {
                return Err(format!("chunk {number}: {free} of {page:#x} are free").into());
            }
        }
    }
    let free: u64 = region.free.iter().sum();
    if region.figures["free_resident"] != free {
        return Err(format!("{free} are free, not as in {}", region.figures).into());
    }
    located.process.hang_up();
    Ok(())
}
