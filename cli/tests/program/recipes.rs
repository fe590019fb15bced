//! The recipes of docs/fleet.md, as far as the programs that they want are there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use yaml_rust2::{Yaml, YamlLoader};

use crate::common::{Golden, UNLUKS, root, text};

/// The blocks of a language, in their order.
fn blocks(language: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/fleet.md")).unwrap();
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

fn block(language: &str, has: &str) -> String {
    blocks(language).into_iter().find(|block| block.contains(has)).unwrap_or_else(|| panic!("no recipe with {has}"))
}

/// A folder as the recipes want it: sound images and a damaged one.
struct Site {
    golden: Golden,
    dir: PathBuf,
}

impl Site {
    fn new() -> Self {
        let golden = Golden::unpack("l2-ext4");
        let dir = golden.path("site");
        fs::create_dir(&dir).unwrap();
        let image = fs::read(&golden.image).unwrap();
        let mut list = String::new();
        for n in 0..4 {
            let name = format!("volume {n}.img");
            fs::write(dir.join(&name), if n == 2 { &image[..image.len() / 2] } else { &image }).unwrap();
            list += &format!("{name}\n");
        }
        fs::write(dir.join("list"), list).unwrap();
        fs::copy(&golden.key, dir.join("key")).unwrap();
        Self { golden, dir }
    }

    fn run(&self, command: &mut Command) -> Output {
        let path = format!("{}:{}", text(Path::new(UNLUKS).parent().unwrap()), std::env::var("PATH").unwrap());
        command.current_dir(&self.dir).env("PATH", path).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a recipe, which ends with the exit code and the summary of one damaged image and three sound ones.
    fn cook(&self, recipe: &str) {
        let out = self.run(Command::new("sh").args(["-c", recipe]));
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(4), "{recipe}\n{said}{}", String::from_utf8_lossy(&out.stderr));
        let merged = self.run(Command::new(UNLUKS).args(["report", "merge", "reports", "--list", "list"]));
        let said = String::from_utf8_lossy(&merged.stdout).into_owned();
        assert!(said.contains("volume 2.img: not-restorable: "), "{recipe}\n{said}");
        assert!(said.contains("4 images: 1 not-restorable, 3 restorable"), "{recipe}\n{said}");
    }
}

#[test]
fn recipes_of_the_program_alone_do_what_they_say() {
    let site = Site::new();
    site.cook(&block("sh", "--csv"));
    assert_eq!(fs::read_to_string(site.dir.join("summary.csv")).unwrap().lines().count(), 5);
    let plan = site.run(Command::new("sh").args(["-c", &block("sh", "--plan")]));
    assert!(String::from_utf8_lossy(&plan.stdout).contains("Slurm: --mem="), "{plan:?}");
    assert!(site.golden.image.exists());
}

#[cfg(feature = "peer-tests")]
#[test]
fn recipes_of_parallel_and_xargs_do_what_they_say() {
    Site::new().cook(&block("sh", "xargs -0"));
    let there = Command::new("parallel").arg("--version").output();
    assert!(there.is_ok(), "parallel is not installed: apt-get install parallel");
    Site::new().cook(&block("sh", "--joblog"));
}

#[test]
fn an_index_of_a_job_does_its_share() {
    let site = Site::new();
    let yaml = block("yaml", "kind: Job");
    let command = yaml.lines().find_map(|line| line.trim().strip_prefix("command: ")).unwrap();
    let command: Vec<String> = serde_json::from_str(command).unwrap();
    for index in 0..10 {
        let mut run = Command::new(UNLUKS);
        let out = site.run(run.args(&command[1..]).env("JOB_COMPLETION_INDEX", index.to_string()));
        assert!(matches!(out.status.code(), Some(0 | 4)), "{out:?}");
    }
    site.cook("unluks report merge reports --list list >/dev/null; exit $?");
    let completions = format!("auto/{}", yaml.split("completions: ").nth(1).unwrap().lines().next().unwrap());
    assert!(command.contains(&completions), "{completions}");
    assert!(yaml.lines().all(|line| !line.contains('\t') && line.len() < 130));
}

/// YAML as Kubernetes takes it: that of JSON.
fn json(yaml: &Yaml) -> serde_json::Value {
    match yaml {
        Yaml::String(text) => text.as_str().into(),
        Yaml::Integer(number) => (*number).into(),
        Yaml::Boolean(is) => (*is).into(),
        Yaml::Array(all) => all.iter().map(json).collect(),
        Yaml::Hash(map) => map
            .iter()
            .map(|(name, value)| (name.as_str().unwrap().to_owned(), json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => panic!("{other:?} is nothing that a manifest has"),
    }
}

/// Against what Kubernetes itself says of a Job. A crate with its types would be built for minutes and takes unknown members.
#[test]
fn the_manifest_of_a_job_is_as_kubernetes_describes_it() {
    let schema = include_str!("kubernetes-job.schema.json");
    let schema = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let text = block("yaml", "kind: Job");
    let faults = |text: &str| -> Vec<String> {
        let all = YamlLoader::load_from_str(text).unwrap();
        assert_eq!(all.len(), 1);
        let job = json(&all[0]);
        schema.iter_errors(&job).map(|e| format!("{}: {e}", e.instance_path())).collect()
    };
    assert_eq!(faults(&text), Vec::<String>::new());
    for (right, wrong) in [
        ("backoffLimitPerIndex: 2", "backoffLimitPerIndexes: 2"),
        ("completions: 10", "completions: ten"),
        ("action: FailIndex", "action: Fail"),
        ("restartPolicy: Never", "restartPolicy: No"),
        ("claimName: backups", "name: backups"),
        ("operator: In, ", ""),
    ] {
        assert!(text.contains(right), "{right}");
        assert_ne!(faults(&text.replacen(right, wrong, 1)), Vec::<String>::new(), "{wrong}");
    }
}

#[test]
fn a_workflow_of_snakemake_does_all_of_it() {
    let (site, recipe) = (Site::new(), block("python", "rule verify"));
    fs::write(site.dir.join("Snakefile"), &recipe).unwrap();
    let is_there = Command::new("snakemake").arg("--version").output().is_ok_and(|out| out.status.success());
    if cfg!(feature = "peer-tests") && is_there {
        return site.cook("snakemake --quiet all --cores 2 >&2 && unluks report merge reports --list list >/dev/null");
    }
    // Without Snakemake, what it would run, for each image.
    let shell = recipe.split("shell:\n").nth(1).unwrap().split("\"\"\"").nth(1).unwrap();
    for n in 0..4 {
        let line =
            shell.replace("{params.image:q}", &format!("'volume {n}.img'")).replace("{wildcards.n}", &n.to_string());
        assert!(!line.contains(['{', '}']), "{line}");
        let out = site.run(Command::new("bash").args(["-euo", "pipefail", "-c", &line]));
        assert!(out.status.success(), "{line}: {out:?}");
    }
    site.cook("unluks report merge reports --list list >/dev/null; exit $?");
}

#[test]
fn scripts_for_slurm_are_whole_and_do_their_share() {
    let (site, scripts) = (Site::new(), blocks("bash"));
    assert_eq!(scripts.len(), 2);
    for script in &scripts {
        let file = site.dir.join("script");
        fs::write(&file, script).unwrap();
        let parsed = site.run(Command::new("bash").arg("-n").arg(&file));
        assert!(parsed.status.success(), "{script}\n{parsed:?}");
    }
    for task in 0..10 {
        let mut bash = Command::new("bash");
        bash.args(["-c", &scripts[0]]).env("SLURM_CPUS_PER_TASK", "1").env("SLURM_ARRAY_TASK_ID", task.to_string());
        let out = site.run(bash.env("SLURM_ARRAY_TASK_MIN", "0").env("SLURM_ARRAY_TASK_COUNT", "10"));
        assert!(matches!(out.status.code(), Some(0 | 4)), "{out:?}");
    }
    site.cook("unluks report merge reports --list list >/dev/null; exit $?");
}
