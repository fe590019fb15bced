//! The key derivations of one unlock: handed out as memory, cores and time allow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::{Attempt, Opened, Plan, UnlockOptions};
use crate::error::{Condition, Error, ErrorKind, Hint, Result, catch_panic, counted};
use crate::io::ReadAt;
use crate::key::Key;
use crate::limits::Limits;
use crate::secret::VolumeKey;

/// A volume key that was found.
pub(super) struct Found {
    pub opened: Opened,
    pub digest: u32,
    pub key: VolumeKey,
}

/// Tries each passphrase with each keyslot, the likeliest first, several at once.
pub(super) fn try_all(
    header: &dyn ReadAt,
    plans: &[Plan],
    key: &Key,
    wanted: &[u32],
    options: &UnlockOptions,
    refused: &mut Vec<Error>,
) -> Result<Vec<Found>> {
    let mut jobs: Vec<(usize, &Plan)> =
        (0..key.candidates().len()).flat_map(|c| plans.iter().map(move |p| (c, p))).collect();
    // All passphrases are tried with the cheap keyslots before one waits for a costly one.
    jobs.sort_by_key(|(_, plan)| plan.is_costly);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let queue = Queue::new(&jobs, wanted, &options.limits, cores);
    let threads = crate::threads::room(cores.min(jobs.len()));
    let work = || {
        while let Some((index, candidate, plan)) = queue.next() {
            let candidates = key.candidates();
            let passphrase = &candidates[candidate].passphrase;
            if let Some(watch) = &options.watch {
                let (keyslot, candidates, time) = (plan.id, candidates.len(), plan.cost);
                watch.tell(Attempt { keyslot, candidate, candidates, time });
            }
            let started = Instant::now();
            let opened = catch_panic("unlocking", || plan.open(header, passphrase.expose()));
            queue.done(index, plan, candidate, Done { opened, took: started.elapsed() });
        }
    };
    match threads {
        0 | 1 => work(),
        _ => std::thread::scope(|s| {
            for n in 1..threads {
                // Where no thread can be had, the ones there are do its work.
                if std::thread::Builder::new().name(format!("unlock-{n}")).spawn_scoped(s, work).is_err() {
                    break;
                }
            }
            work();
        }),
    }
    queue.finish(refused)
}

/// A job that is over.
struct Done {
    opened: Result<Option<VolumeKey>>,
    took: Duration,
}

/// The jobs of one unlock, handed out as memory and time allow.
struct Queue<'a> {
    jobs: &'a [(usize, &'a Plan)],
    wanted: &'a [u32],
    limits: &'a Limits,
    cores: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: usize,
    running: usize,
    /// Threads that the running derivations keep busy.
    busy: usize,
    memory: u64,
    spent: Duration,
    found: Vec<(usize, Found)>,
    /// The keyslots whose area could not be read, by the job that found out.
    unreadable: BTreeMap<usize, (u32, Error)>,
    error: Option<Error>,
    /// The first job that the time budget did not allow.
    out_of_time: bool,
}

impl<'a> Queue<'a> {
    fn new(jobs: &'a [(usize, &'a Plan)], wanted: &'a [u32], limits: &'a Limits, cores: usize) -> Self {
        Self { jobs, wanted, limits, cores, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The next job, as soon as there are memory and cores for it; `None` when there is nothing more to do.
    ///
    /// A derivation that keeps all cores busy runs alone: the likeliest keyslot would only be slower beside another.
    fn next(&self) -> Option<(usize, usize, &'a Plan)> {
        let mut s = self.lock();
        loop {
            let has = |digest: u32| s.found.iter().any(|(_, f)| f.digest == digest);
            // Where nothing is wanted, nothing that was found is enough.
            let all_found = !self.wanted.is_empty() && self.wanted.iter().all(|d| has(*d));
            if s.error.is_some() || s.out_of_time || all_found {
                return None;
            }
            let (index, (candidate, plan)) = (s.next, *self.jobs.get(s.next)?);
            if has(plan.digest.id) || s.unreadable.values().any(|(keyslot, _)| *keyslot == plan.id) {
                s.next = s.next.saturating_add(1);
                continue;
            }
            let memory = plan.derivation.memory();
            let too_much = s.memory.saturating_add(memory) > self.limits.kdf_memory;
            // One that opens beside a costly one would wait for that, too.
            if s.running > 0 && (plan.is_costly || too_much || s.busy.saturating_add(plan.width) > self.cores) {
                s = self.changed.wait(s).unwrap_or_else(std::sync::PoisonError::into_inner);
                continue;
            }
            let spent = s.spent.saturating_add(plan.cost);
            if spent > self.limits.kdf_time {
                // What runs may turn out to be quicker than it was estimated to be.
                if s.running > 0 {
                    s = self.changed.wait(s).unwrap_or_else(std::sync::PoisonError::into_inner);
                    continue;
                }
                s.out_of_time = true;
                return None;
            }
            s.spent = spent;
            s.next = s.next.saturating_add(1);
            s.running = s.running.saturating_add(1);
            s.busy = s.busy.saturating_add(plan.width);
            s.memory = s.memory.saturating_add(memory);
            return Some((index, candidate, plan));
        }
    }

    fn done(&self, index: usize, plan: &Plan, candidate: usize, done: Done) {
        let mut s = self.lock();
        // The estimate is a slow machine's. What is over is known better, so that the next may still be allowed.
        s.spent = s.spent.saturating_sub(plan.cost).saturating_add(done.took.min(plan.cost));
        s.running = s.running.saturating_sub(1);
        s.busy = s.busy.saturating_sub(plan.width);
        s.memory = s.memory.saturating_sub(plan.derivation.memory());
        match done.opened {
            Ok(Some(key)) => {
                let opened = Opened { keyslot: plan.id, candidate };
                s.found.push((index, Found { opened, digest: plan.digest.id, key }));
            }
            Ok(None) => {}
            // The passphrase may be that of another keyslot.
            Err(e) if e.kind() == ErrorKind::Io && !e.is(Condition::Panic) => {
                s.unreadable.insert(index, (plan.id, e));
            }
            Err(e) => s.error = s.error.take().or(Some(e)),
        }
        self.changed.notify_all();
    }

    fn finish(self, refused: &mut Vec<Error>) -> Result<Vec<Found>> {
        let mut s = self.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Where several slots opened at once, the first in order counts, so that reports do not vary.
        s.found.sort_by_key(|(index, _)| *index);
        let mut found: Vec<Found> = Vec::new();
        for (_, f) in s.found {
            if found.iter().all(|g| g.digest != f.digest) {
                found.push(f);
            }
        }
        let mut keyslots = BTreeSet::new();
        refused.extend(s.unreadable.into_values().filter(|(id, _)| keyslots.insert(*id)).map(|(_, e)| e));
        if s.out_of_time {
            let message = format!(
                "{} of {} were made; the next would take the unlock beyond the {} s that it may take",
                s.next,
                counted(self.jobs.len(), "key derivation"),
                self.limits.kdf_time.as_secs()
            );
            refused.push(Error::limit("kdf.time", message).with_hint([Hint::NameKeyslot, Hint::RaiseKdfTime]));
        }
        match s.error {
            Some(e) if found.is_empty() => Err(e),
            _ => Ok(found),
        }
    }
}
