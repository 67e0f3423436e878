//! Embedding: `out[i] = table[ids[i]]`, the row of each token.
//!
//! out: (…, C); table: (V, C). Backward: `dtable[ids[i]] += dout[i]`.

use super::is_wanted;
use crate::memory::Buffer;
use crate::{Result, Tape, Tensor, TensorError};

/// Looks up the rows of `table` for `ids`; the result has shape `shape` + (C). Records itself on `tape`.
pub fn embedding(tape: Option<&Tape>, table: &Tensor, ids: &[u32], shape: &[usize]) -> Result<Tensor> {
    let (rows, c) = (table.rows(), table.cols());
    if shape.iter().product::<usize>() != ids.len() {
        let want = format!("a shape of {} ids", ids.len());
        return Err(TensorError::Shape { op: "embedding", got: shape.to_vec(), want });
    }
    if let Some(position) = ids.iter().position(|&id| id as usize >= rows) {
        return Err(TensorError::IdOutOfRange { id: ids[position], position, rows });
    }
    let mut out: Buffer = Buffer::scratch(ids.len() * c);
    match table.weights() {
        Some(weights) => {
            out.chunks_exact_mut(c.max(1)).zip(ids).for_each(|(out, &id)| weights.row(id as usize, out));
        }
        None => kernels::rows::embedding(&mut out, table.data(), ids),
    }
    let mut out_shape = shape.to_vec();
    out_shape.push(c);
    let out = Tensor::from_buffer(&out_shape, out);
    let Some(tape) = tape.or(table.tape()) else { return Ok(out) };
    let (ids, target, len) = (ids.to_vec(), table.target(), table.len());
    if !is_wanted(&[target]) {
        return Ok(out.beside(tape));
    }
    Ok(tape.record(out, move |dout, back| {
        let mut dtable = back.take(target, len);
        if let Some(dtable) = &mut dtable {
            kernels::rows::embedding_backward(dtable, dout.f32(), &ids);
        }
        back.put(dtable);
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, random};

    #[test]
    fn gradient() {
        check(&[random(&[6, 5], 1)], |x| embedding(None, &x[0], &[2, 0, 2, 5, 1, 2], &[2, 3]));
    }

    #[test]
    fn an_unknown_id_is_refused() {
        let error = embedding(None, &random(&[6, 5], 1), &[2, 6], &[2]).unwrap_err();
        let want = "token id 6 at position 1 is out of range: the vocabulary has 6 tokens (ids 0 to 5)";
        assert_eq!(error.to_string(), want);
    }
}
