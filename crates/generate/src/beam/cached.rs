//! Beam search on a model: beams share the keys and values of what they have in common.

use models::{Gpt2, KvCache, KvPool, Pass, Run};

use super::{BeamSearch, Hypothesis, Step};
use crate::GenerateError;

/// Runs a search to its end. All beams together may use `blocks` blocks of keys and values; see [`KvPool`].
pub fn beam_search_on(
    model: &Gpt2,
    mut search: BeamSearch,
    blocks: usize,
) -> Result<Vec<Hypothesis>, GenerateError> {
    let pool = KvPool::new(model.config(), model.precision(), blocks);
    let mut caches = vec![KvCache::of(&pool)];
    let mut ids = search.prompt.clone();
    loop {
        let tokens = ids.len() / caches.len();
        let rows: Vec<usize> = (0..caches.len()).map(|beam| (beam + 1) * tokens - 1).collect();
        let runs = caches.iter_mut().map(|cache| Run { cache, tokens }).collect();
        let logits = model.logits_of(&ids, &mut Pass::batch(runs), &rows)?;
        let rows: Vec<&[f32]> = logits.data().chunks_exact(logits.cols()).collect();
        let Step::Continue(next) = search.step(&rows)? else { return Ok(search.finish()) };
        // A beam that goes on in several ways is forked; one that does not go on gives its blocks back.
        caches = next.iter().map(|beam| caches[beam.parent].fork(usize::MAX)).collect();
        ids = next.iter().map(|beam| beam.token).collect();
    }
}
