//! Loads the object and attaches its programs, one at a time.

use std::fmt;

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{
        BtfTracePoint, FExit, Iter, ProgramError, RawTracePoint, TracePoint,
        trace_point::TracePointLink,
    },
};

use super::{
    attach::Options,
    facts,
    plan::{Hook, Program},
    room, stacks,
};
use crate::{model::report::Evidence, source::memory};

/// The probes' object, built by `cargo xtask bpf`.
static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/memtrace.bpf.o");

/// Loads the object. Call it before the kernel's types are read for [`attach`]: the loader reads them
/// for itself, and both together are large.
pub(super) fn load(
    globals: &facts::Globals,
    options: Options,
    evidence: Evidence,
    cpus: u32,
) -> Result<Ebpf> {
    let Options { machine, follow, fault_events, stacks: kinds, buffer_bytes, log_level, .. } =
        options;
    let follow = u32::from(follow);
    let counts_frames = u32::from(evidence == Evidence::Frames);
    let remanence = options.measures_remanence(evidence);
    let mut loader = EbpfLoader::new();
    // Our object has no relocations against the kernel's types.
    loader.btf(None).map_max_entries("EVENTS", buffer_bytes);
    for (name, value) in globals.offsets.iter().chain(&globals.others) {
        loader.override_global(name, value, true);
    }
    let frames = if remanence { memory::frames()?.next_power_of_two() } else { 1 };
    let (stamps_frames, frame_mask) = (u32::from(remanence), frames - 1);
    loader.map_max_entries("FRAMES", frames);
    stacks::size_maps(&mut loader, &kinds);
    if machine {
        room::size_maps(&mut loader);
    }
    let tells_faults = u32::from(fault_events);
    loader.override_global("TELLS_FAULTS", &tells_faults, true);
    loader.override_global("STAMPS_FRAMES", &stamps_frames, true);
    loader.override_global("FRAME_MASK", &frame_mask, true);
    let machine = u32::from(machine);
    loader.override_global("MACHINE", &machine, true);
    loader.override_global("FOLLOW", &follow, true);
    loader.override_global("COUNTS_FRAMES", &counts_frames, true);
    loader.override_global("SEED_CPUS", &cpus, true);
    loader.override_global(aya_log::LEVEL, &log_level, false);
    loader.load(OBJECT).context("cannot load the probes")
}

pub(super) fn program<'a>(bpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::programs::Program> {
    bpf.program_mut(name).ok_or_else(|| anyhow!("the object has no program {name}"))
}

/// The kernel's verifier does not take a program of ours.
#[derive(Clone, Debug, thiserror::Error)]
#[error("this kernel refuses the program {program}: {reason}")]
pub struct Refused {
    program: &'static str,
    reason: String,
}

/// Loads a program and attaches it. Returns what holds an event of tracefs; the object itself holds the
/// other hooks.
pub(super) fn attach(
    bpf: &mut Ebpf,
    (name, hook): Program,
    btf: &Btf,
) -> Result<Option<TracePointLink>> {
    let attached = try_attach(program(bpf, name)?, hook, btf);
    attached.map_err(|error| explain(name, hook, error))
}

/// Says why a program could not be loaded, or not be attached to a hook.
pub(super) fn explain(
    name: &'static str,
    hook: impl fmt::Display,
    error: ProgramError,
) -> anyhow::Error {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            log::debug!("{name}: {log}");
            // The verifier's own reason is the last line that is not a statistic.
            let last = log.lines().rfind(|line| {
                let statistics = ["processed ", "verification time", "stack depth"];
                !statistics.iter().any(|start| line.starts_with(start)) && !line.is_empty()
            });
            let reason = last.map_or_else(|| io_error.to_string(), str::to_owned);
            Refused { program: name, reason }.into()
        }
        other => anyhow::Error::from(other).context(format!("cannot attach {hook}")),
    }
}

fn try_attach(
    program: &mut aya::programs::Program,
    hook: Hook,
    btf: &Btf,
) -> Result<Option<TracePointLink>, ProgramError> {
    match hook {
        Hook::RawTracepoint(tracepoint, _) => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program.attach(tracepoint)?;
        }
        Hook::BtfTracepoint(tracepoint) => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(tracepoint, btf)?;
            program.attach()?;
        }
        Hook::Event(name) => {
            let program: &mut TracePoint = program.try_into()?;
            // One program for several events.
            if program.fd().is_err() {
                program.load()?;
            }
            let link = program.attach("syscalls", name)?;
            return program.take_link(link).map(Some);
        }
        Hook::Fexit(function) => {
            let program: &mut FExit = program.try_into()?;
            program.load(function, btf)?;
            program.attach()?;
        }
        Hook::Iterator(kind) => {
            let program: &mut Iter = program.try_into()?;
            program.load(kind, btf)?;
        }
    }
    Ok(None)
}

/// Tries whether `fexit` programs load and attach. Only a refusal is an answer; any other error
/// stops.
pub(super) fn try_trampoline(bpf: &mut Ebpf, btf: &Btf) -> Result<bool> {
    let (name, function) = ("munmap_args", "__x64_sys_munmap");
    let program: &mut FExit = program(bpf, name)?.try_into()?;
    let attached = program.load(function, btf).and_then(|()| program.attach());
    // Kernels before 5.15 do not attach a program twice: it is loaded anew.
    match attached {
        Ok(link) => {
            program.detach(link)?;
            program.unload()?;
            Ok(true)
        }
        Err(error) if is_refusal(&error) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot try fexit/{function}")),
    }
}

/// `EPERM`: lockdown or policy. `ENOTSUPP` (524) and `EOPNOTSUPP`: no trampolines in this kernel.
/// `ENOENT` and `EINVAL` on attaching: no such function, or it cannot be traced.
fn is_refusal(error: &ProgramError) -> bool {
    let code = match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::Btf(_) => return true,
        _ => return false,
    };
    matches!(code, Some(libc::EPERM | 524 | libc::EOPNOTSUPP | libc::ENOENT | libc::EINVAL))
}
