//! What is written down during a run: `metrics.jsonl`, TensorBoard's event files, and at the end `loss.svg`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use models::checkpoint::write_bytes;
use serde_json::{Map, Value};

use crate::tensorboard::EventFile;
use crate::{Result, TrainError, plot};

/// Losses over steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Of training steps.
    pub train: Vec<(u64, f64)>,
    /// Of validations.
    pub val: Vec<(u64, f64)>,
}

/// The open logs of a run.
#[derive(Debug)]
pub struct Metrics {
    dir: PathBuf,
    path: PathBuf,
    lines: File,
    events: EventFile,
    losses: Series,
}

const TRAIN_LOSS: &str = "train/loss";
const VAL_LOSS: &str = "val/loss";

impl Metrics {
    /// Opens the logs in `dir`. Lines of `metrics.jsonl` after `step` are dropped: they are about to be made again.
    pub fn open(dir: &Path, step: u64) -> Result<Metrics> {
        fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
        let path = dir.join("metrics.jsonl");
        let (kept, losses) = keep_until(&path, step)?;
        // A kill leaves the old lines or the kept ones.
        write_bytes(&path, kept.as_bytes())?;
        let lines = OpenOptions::new().append(true).open(&path).map_err(TrainError::io(&path))?;
        let events = dir.join("events");
        let events = EventFile::create(&events, now()).map_err(TrainError::io(&events))?;
        Ok(Metrics { dir: dir.to_owned(), path, lines, events, losses })
    }

    /// Writes the values of a step.
    pub fn write(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        for &(name, value) in values {
            match name {
                TRAIN_LOSS => self.losses.train.push((step, value)),
                VAL_LOSS => self.losses.val.push((step, value)),
                _ => {}
            }
        }
        let time = now();
        let mut line =
            Map::from_iter([("step".to_owned(), Value::from(step)), ("time".to_owned(), Value::from(time))]);
        line.extend(values.iter().map(|&(name, value)| (name.to_owned(), Value::from(value))));
        writeln!(self.lines, "{}", Value::Object(line)).map_err(TrainError::io(&self.path))?;
        self.events.scalars(time, step, values).map_err(TrainError::io(&self.dir.join("events")))
    }

    /// Draws `loss.svg`, if there are losses.
    pub fn plot(&self) -> Result<Option<PathBuf>> {
        let path = self.dir.join("loss.svg");
        let drawn =
            plot::draw(&self.losses).map_err(|reason| TrainError::State { path: path.clone(), reason })?;
        let Some(svg) = drawn else { return Ok(None) };
        write_bytes(&path, svg.as_bytes())?;
        Ok(Some(path))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The lines up to a step, and the losses in them. A line that was cut off by a kill is dropped.
fn keep_until(path: &Path, step: u64) -> Result<(String, Series)> {
    let (mut kept, mut losses) = (String::new(), Series::default());
    if step == 0 || !path.is_file() {
        return Ok((kept, losses));
    }
    for line in BufReader::new(File::open(path).map_err(TrainError::io(path))?).lines() {
        let line = line.map_err(TrainError::io(path))?;
        let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
        let Some(at) = value.get("step").and_then(Value::as_u64).filter(|&at| at <= step) else { continue };
        let loss = |name: &str| value.get(name).and_then(Value::as_f64);
        losses.train.extend(loss(TRAIN_LOSS).map(|loss| (at, loss)));
        losses.val.extend(loss(VAL_LOSS).map(|loss| (at, loss)));
        kept += &line;
        kept.push('\n');
    }
    Ok((kept, losses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_resumed_step_are_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(dir.path(), 0).unwrap();
        for step in 1..=5 {
            metrics.write(step, &[("train/loss", 5.0 - step as f64), ("lr", 0.1)]).unwrap();
        }
        metrics.write(5, &[("val/loss", f64::NAN)]).unwrap();
        drop(metrics);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text + "{\"step\": 2, \"cut").unwrap();
        let mut metrics = Metrics::open(dir.path(), 3).unwrap();
        assert_eq!(metrics.losses.train, [(1, 4.0), (2, 3.0), (3, 2.0)]);
        metrics.write(4, &[("val/loss", 0.5)]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4);
        let svg = fs::read_to_string(metrics.plot().unwrap().unwrap()).unwrap();
        assert!(svg.contains("<svg") && svg.contains("validation"));
        assert_eq!(fs::read_dir(dir.path().join("events")).unwrap().count(), 2);
    }
}
