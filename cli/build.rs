//! What `unluks --version --verbose` says of the build. It asks the compiler and git, and no network.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let said = |name: &str| env::var(name).unwrap_or_default();
    let compiler = line(Command::new(said("RUSTC")).arg("--version")).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=UNLUKS_TARGET={}", said("TARGET"));
    println!("cargo::rustc-env=UNLUKS_COMPILER={compiler}");
    println!("cargo::rustc-env=UNLUKS_COMMIT={}", commit(&said("PROFILE")));
    println!("cargo::rerun-if-env-changed=UNLUKS_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
}

/// The commit that is built: what dist/make says it is, where the sources have no history with them; else git's.
fn commit(profile: &str) -> String {
    if let Ok(commit) = env::var("UNLUKS_COMMIT") {
        return commit;
    }
    // A build for development would be made anew with each commit, and all its tests with it.
    if profile != "release" {
        return "unknown (a build for development)".to_owned();
    }
    from_tarball().or_else(from_git).unwrap_or_else(|| "unknown".to_owned())
}

/// What dist/make writes beside the sources that it packs.
fn from_tarball() -> Option<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.join("COMMIT");
    let text = std::fs::read_to_string(&file).ok()?;
    println!("cargo::rerun-if-changed={}", file.display());
    Some(text.trim().to_owned())
}

fn from_git() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let git = |args: &[&str]| line(Command::new("git").arg("-C").arg(root).args(args));
    // Sources that were unpacked within another repository are none of its commits.
    if Path::new(&git(&["rev-parse", "--show-toplevel"])?) != root {
        return None;
    }
    for watched in ["HEAD", "logs/HEAD", "index"] {
        println!("cargo::rerun-if-changed={}", root.join(git(&["rev-parse", "--git-path", watched])?).display());
    }
    for folder in ["src", "cli/src", "openstack/src"] {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some();
    Some(if changed { format!("{commit}, with changes") } else { commit })
}

/// The first line of what a program prints, where there is one.
fn line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}
