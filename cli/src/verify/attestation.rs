//! The verdict as a statement of in-toto: <https://github.com/in-toto/attestation>, `spec/v1/statement.md` and
//! `spec/predicates/test-result.md`.

use serde::Serialize;
use std::collections::BTreeMap;
use unluks::verify::{Outcome, Report, Verdict};
use unluks::{Result, json};

/// What a statement begins with.
pub const BEGINS: &str = "{\"_type\":\"https://in-toto.io/Statement/";

/// The name of what a statement is of.
const RUN: &str = "unluks verify report";

/// The run that a statement is of; `None` where it says none.
pub fn run_of(statement: &str) -> Option<String> {
    let statement: serde_json::Value = serde_json::from_str(statement).ok()?;
    let configuration = statement.get("predicate")?.get("configuration")?.as_array()?;
    let made_of = configuration.iter().find(|resource| resource.get("name").is_some_and(|name| name == RUN))?;
    Some(made_of.get("digest")?.get("sha256")?.as_str()?.to_owned())
}

#[derive(Serialize)]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<Resource<'a>>,
    #[serde(rename = "predicateType")]
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

#[derive(Serialize)]
struct Resource<'a> {
    name: &'a str,
    digest: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    result: &'static str,
    configuration: Vec<Resource<'a>>,
    passed_tests: Vec<&'static str>,
    warned_tests: Vec<&'static str>,
    failed_tests: Vec<&'static str>,
}

/// The statement of a report, a line. Its subjects are the image, its plaintext and the output of a decryption, as far as
/// they were hashed; what was made, and with which policy, is in its configuration.
pub fn statement(report: &Report) -> Result<String> {
    let of = |outcome: Outcome| -> Vec<&'static str> {
        report.stages.iter().filter(|stage| stage.result == outcome).map(|stage| stage.stage.name()).collect()
    };
    let hashes = &report.hashes;
    let image: BTreeMap<&str, &str> = hashes
        .image
        .iter()
        .filter_map(|(name, all)| Some((name.as_str(), all.first().filter(|_| all.len() == 1)?.as_str())))
        .collect();
    let plaintext: BTreeMap<&str, &str> = hashes.plaintext.iter().map(|(name, hex)| (&**name, &**hex)).collect();
    // A subject is known by its digest alone.
    let output = report.output.iter().map(|output| {
        let digest = output.sha256.iter().map(|hex| ("sha256", hex.as_str())).collect();
        (output.path.as_str(), digest)
    });
    let subject = [(report.image.path.as_str(), image), ("plaintext", plaintext)].into_iter().chain(output);
    let subject = subject.filter(|(_, digest)| !digest.is_empty()).map(|(name, digest)| Resource { name, digest });
    let mut configuration = vec![Resource { name: RUN, digest: BTreeMap::from([("sha256", report.run.id.as_str())]) }];
    if let Some(sha256) = report.policy.as_ref().and_then(|policy| policy.sha256.as_deref()) {
        configuration.push(Resource { name: "policy", digest: BTreeMap::from([("sha256", sha256)]) });
    }
    let result = match report.verdict {
        Verdict::Restorable => "PASSED",
        Verdict::RestorableWithFindings => "WARNED",
        Verdict::NotRestorable | Verdict::WrongKey => "FAILED",
    };
    let predicate = Predicate {
        result,
        configuration,
        passed_tests: of(Outcome::Ok),
        warned_tests: of(Outcome::Finding),
        failed_tests: of(Outcome::Failed),
    };
    let statement = Statement {
        kind: "https://in-toto.io/Statement/v1",
        subject: subject.collect(),
        predicate_type: "https://in-toto.io/attestation/test-result/v0.1",
        predicate,
    };
    Ok(json::compact(&statement)? + "\n")
}
