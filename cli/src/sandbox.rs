//! What the process of a reader may do from here on: read and write the pipes that it has, and take a little memory.
//!
//! | fence | what is behind it | where it is missing |
//! |---|---|---|
//! | `RLIMIT_AS`, `RLIMIT_NOFILE` | memory, more files | nowhere |
//! | Landlock | all files, all TCP, signals and abstract sockets of others | before Linux 5.13, the last before 6.12 |
//! | seccomp | every system call but the few that a parser makes; others fail with EPERM | other processors than x86-64, ARM64 and RISC-V |
//!
//! All are best effort: on an old kernel files are read all the same. The process has no key, and no file open but its
//! pipes; the fences are for what a parser with an error might be made to do.

#[cfg(target_os = "linux")]
use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use rustix::process::{Resource, Rlimit, setrlimit};
use unluks::limits::READER_MEMORY_MAX;
use unluks::threads::taken;

/// What is asked of Landlock: what an older kernel has not is left out.
#[cfg(target_os = "linux")]
const NEWEST: ABI = ABI::V6;

/// Puts all fences up.
pub fn enter() {
    limit_memory();
    #[cfg(target_os = "linux")]
    {
        let _ = no_files();
        let _ = few_calls();
    }
}

/// The fences that this system has, in words.
pub fn fences() -> Vec<String> {
    let mut all = vec!["a limit of memory".to_owned()];
    #[cfg(target_os = "linux")]
    {
        let rules = |level, abi| Ruleset::default().set_compatibility(level).handle_access(AccessFs::from_all(abi));
        let hard = CompatLevel::HardRequirement;
        let whole = |rules: Ruleset| rules.handle_access(AccessNet::from_all(NEWEST))?.scope(Scope::from_all(NEWEST));
        if rules(hard, NEWEST).and_then(whole).and_then(Ruleset::create).is_ok() {
            all.push("Landlock".into());
        } else if rules(hard, ABI::V1).and_then(Ruleset::create).is_ok() {
            all.push("Landlock, of an older kernel".into());
        }
        let is_there = std::fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("\nSeccomp:"));
        if is_there && seccompiler::TargetArch::try_from(std::env::consts::ARCH).is_ok() {
            all.push("seccomp".into());
        }
    }
    all
}

/// What address space the process has already, and so much more.
fn limit_memory() {
    let most = Some(taken().unwrap_or(0).saturating_add(READER_MEMORY_MAX));
    let _ = setrlimit(Resource::As, Rlimit { current: most, maximum: most });
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: Some(0) });
}

#[cfg(target_os = "linux")]
fn no_files() -> Result<(), landlock::RulesetError> {
    let all = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    all.create()?.restrict_self()?;
    Ok(())
}

/// What a parser that reads and writes pipes asks of the system, and what ends it.
#[cfg(target_os = "linux")]
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_sched_yield,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_os = "linux")]
// A number of a call has 32 bits on some processors.
#[allow(clippy::useless_conversion)]
fn few_calls() -> Result<(), Box<dyn std::error::Error>> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let rules = CALLS.iter().map(|call| (i64::from(*call), Vec::new())).collect();
    let refused = SeccompAction::Errno(u32::try_from(libc::EPERM)?);
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}
