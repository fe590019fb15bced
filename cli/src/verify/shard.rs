//! Which share of the images is ours, where a scheduler runs many of us.

use unluks::error::escape;
use unluks::verify::fleet::Shard;
use unluks::{Error, Result};

/// Reads I/N, auto and auto/N; `env` is the environment.
pub fn parse(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Shard> {
    let (which, count) = match text.split_once('/') {
        Some((which, count)) => (which, Some(number("--shard", count)?)),
        None => (text, None),
    };
    let variable = |name: &str| env(name).map(|value| number(name, &value)).transpose();
    let shard = if which != "auto" {
        let count = count.ok_or_else(|| Error::invalid("--shard wants I/N, auto or auto/N"))?;
        Shard { index: number("--shard", which)?, count }
    } else if let Some(id) = variable("SLURM_ARRAY_TASK_ID")? {
        match count {
            // Some tasks of an array may run again alone: each has its number still, and the array other ends.
            Some(count) => Shard { index: id, count },
            None => {
                let first = variable("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
                let step = variable("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
                let index = id.checked_sub(first).map(|n| n / step);
                let index =
                    index.ok_or_else(|| Error::invalid("SLURM_ARRAY_TASK_ID is less than SLURM_ARRAY_TASK_MIN"))?;
                Shard { index, count: variable("SLURM_ARRAY_TASK_COUNT")?.ok_or_else(|| unknown("Slurm"))? }
            }
        }
    } else if let Some(index) = variable("JOB_COMPLETION_INDEX")? {
        Shard { index, count: count.ok_or_else(|| unknown("Kubernetes"))? }
    } else {
        let message = "--shard auto: neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set";
        return Err(Error::invalid(message));
    };
    if shard.index >= shard.count {
        let message = format!("--shard: found {} of {}; 0 to N - 1 are allowed", shard.index, shard.count);
        return Err(Error::invalid(message));
    }
    Ok(shard)
}

fn number(name: &str, text: &str) -> Result<u64> {
    text.trim().parse().map_err(|_| Error::invalid(format!("{name}: found \"{}\"; a number is wanted", escape(text))))
}

fn unknown(scheduler: &str) -> Error {
    Error::invalid(format!("{scheduler} does not say how many shares there are: name it with --shard auto/N"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_from_the_flag_or_from_the_scheduler() {
        let with = |text: &str, env: &[(&str, &str)]| {
            let get = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            parse(text, get).map(|s| (s.index, s.count)).ok()
        };
        assert_eq!(with("2/5", &[]), Some((2, 5)));
        for wrong in ["5/5", "0/0", "2", "a/5", "-1/5", "auto", "auto/3", "1/", ""] {
            assert_eq!(with(wrong, &[]), None, "{wrong}");
        }
        let slurm = [("SLURM_ARRAY_TASK_ID", "14"), ("SLURM_ARRAY_TASK_COUNT", "5"), ("SLURM_ARRAY_TASK_MIN", "10")];
        assert_eq!(with("auto", &slurm), Some((4, 5)));
        let steps = [slurm[0], ("SLURM_ARRAY_TASK_COUNT", "3"), slurm[2], ("SLURM_ARRAY_TASK_STEP", "2")];
        assert_eq!(with("auto", &steps), Some((2, 3)));
        let alone = [("SLURM_ARRAY_TASK_ID", "4"), ("SLURM_ARRAY_TASK_COUNT", "1"), ("SLURM_ARRAY_TASK_MIN", "4")];
        assert_eq!((with("auto/10", &alone), with("auto/4", &alone)), (Some((4, 10)), None));
        assert_eq!(with("auto/8", &[("JOB_COMPLETION_INDEX", "7")]), Some((7, 8)));
        assert_eq!(with("auto", &[("JOB_COMPLETION_INDEX", "7")]), None);
    }
}
