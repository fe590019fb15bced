//! `unluks restore-plan --run`: does what the plan says.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use unluks::backup::BackupDir;
use unluks::backup::plan::Plan;
use unluks::progress::Progress;
use unluks::{Error, Result};
use unluks_openstack::restore::Restore;
use unluks_openstack::{Cloud, Options};

use crate::args::RestorePlanArgs;
use crate::fetch::catch_signals;
use crate::progress::ProgressView;

pub fn run(args: &RestorePlanArgs, dir: &BackupDir, plan: &Plan) -> Result<ExitCode> {
    let progress = Progress::default();
    let abort = catch_signals(&progress)?;
    let options = Options { name: args.cloud.clone(), cancelled: Arc::clone(&abort), ..Options::default() };
    let cloud = Cloud::connect(options)?;
    let tell = |line: &str| {
        if !args.quiet {
            let _ = writeln!(anstream::stderr(), "{line}");
        }
    };
    let of_volume = |rule| matches!(rule, "volume-type" | "cinder");
    for note in plan.notes.iter().filter(|note| plan.volume_wanted || !of_volume(note.rule)) {
        tell(&format!("{}: {}", note.rule, note.message));
    }
    let shown = ProgressView::new(args.progress, args.quiet, Some(plan.image.size), 0);
    let restore = Restore { api: &cloud, dir, plan, progress: &progress, abort: &abort, tell: &tell };
    let made = shown.beside(&progress, || restore.run());
    shown.finish(progress.bytes());
    let lines: String = made?.iter().map(|m| format!("{} {}\n", m.kind.name(), m.id)).collect();
    std::io::stdout().write_all(lines.as_bytes()).map_err(|e| Error::io("printing what was made", e))?;
    Ok(ExitCode::SUCCESS)
}
