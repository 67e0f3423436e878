//! The tape: operations record how to go back, and [`Tape::backward`] walks them in reverse.
//!
//! The chain rule in one sentence: a node that made `out` from `x` is handed `dout`, the gradient of the loss by
//! `out`, and adds to `dx`. Gradients are always summed, never overwritten, since a tensor may be used twice.
//! The tape owns the parameters' gradients ([`Grads`]) from [`Tape::new`] until the end of the backward pass, so
//! that an operation may also add to them early (see [`crate::ops::lm_loss()`]).

use std::sync::{Arc, Mutex, MutexGuard};

use crate::memory::Buffer;
use crate::tensor::{Origin, Tensor};

/// One gradient buffer for every parameter, in the model's order.
#[derive(Clone, Debug, Default)]
pub struct Grads {
    slots: Vec<Vec<f32>>,
}

impl Grads {
    /// Zeros, one buffer for each length.
    pub fn new(lens: &[usize]) -> Grads {
        Grads { slots: lens.iter().map(|&len| vec![0.0; len]).collect() }
    }

    /// The number of parameters.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The gradient of one parameter.
    pub fn slot(&self, slot: usize) -> &[f32] {
        &self.slots[slot]
    }

    /// The gradient of one parameter, to change.
    pub fn slot_mut(&mut self, slot: usize) -> &mut [f32] {
        &mut self.slots[slot]
    }

    /// Sets every gradient to zero.
    pub fn zero(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.fill(0.0));
    }
}

/// Where a gradient belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Nowhere,
    Parameter(usize),
    Node(usize),
}

type BackwardFn = Box<dyn FnOnce(Buffer, &mut Backward) + Send>;

#[derive(Default)]
struct Recording {
    nodes: Vec<BackwardFn>,
    grads: Grads,
}

/// A recording of the operations of one forward pass. Clones share it.
#[derive(Clone)]
pub struct Tape(Arc<Mutex<Recording>>);

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Tape({} operations)", self.lock().nodes.len())
    }
}

impl Tape {
    /// An empty tape that will add to these gradients.
    pub fn new(grads: Grads) -> Tape {
        Tape(Arc::new(Mutex::new(Recording { nodes: Vec::new(), grads })))
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Records an operation's way back and returns its result as a node of this tape.
    pub(crate) fn record(
        &self,
        out: Tensor,
        backward: impl FnOnce(Buffer, &mut Backward) + Send + 'static,
    ) -> Tensor {
        let mut recording = self.lock();
        recording.nodes.push(Box::new(backward));
        let index = recording.nodes.len() - 1;
        drop(recording);
        out.with_origin(Origin::Node(self.clone(), index))
    }

    /// `x` as the first node of a computation: its gradient goes on to wherever `x` sends it.
    pub fn input(&self, x: &Tensor) -> Tensor {
        let target = x.target();
        self.record(x.clone(), move |dout, back| back.add(target, dout))
    }

    /// Adds to one parameter's gradient while still recording.
    pub(crate) fn with_parameter_grad(&self, slot: usize, f: impl FnOnce(&mut [f32])) {
        f(&mut self.lock().grads.slots[slot]);
    }

    /// Walks back from `out`, whose gradient is `dout`, and hands out the parameters' gradients.
    ///
    /// Each node's saved values are freed as soon as they have been used.
    ///
    /// # Panics
    /// If `out` was not recorded on this tape or `dout` has another length.
    pub fn backward(self, out: &Tensor, dout: Vec<f32>) -> Grads {
        let Target::Node(last) = out.target() else { panic!("backward starts at a recorded tensor") };
        assert_eq!(out.len(), dout.len(), "dout has the length of out");
        let Recording { mut nodes, grads } = std::mem::take(&mut *self.lock());
        nodes.truncate(last + 1);
        let mut back = Backward { pending: (0..nodes.len()).map(|_| None).collect(), grads };
        back.pending[last] = Some(dout.into());
        while let Some(node) = nodes.pop() {
            if let Some(dout) = back.pending[nodes.len()].take() {
                node(dout, &mut back);
            }
        }
        back.grads
    }

    /// Ends the recording without a backward pass and gives the gradients back.
    pub fn into_grads(self) -> Grads {
        std::mem::take(&mut *self.lock()).grads
    }
}

/// The gradients that are still on their way back.
pub(crate) struct Backward {
    pending: Vec<Option<Buffer>>,
    grads: Grads,
}

/// One gradient taken out of [`Backward`] to be added to, and put back after.
pub(crate) struct Grad {
    target: Target,
    values: GradValues,
    /// Nothing has been added yet: the values are arbitrary and must be overwritten.
    pub fresh: bool,
}

enum GradValues {
    Pooled(Buffer),
    Owned(Vec<f32>),
}

impl std::ops::Deref for Grad {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &self.values {
            GradValues::Pooled(values) => values,
            GradValues::Owned(values) => values,
        }
    }
}

impl std::ops::DerefMut for Grad {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.values {
            GradValues::Pooled(values) => values,
            GradValues::Owned(values) => values,
        }
    }
}

impl Backward {
    /// Takes the gradient to add to, of `len` values, or `None` where none is wanted.
    pub fn take(&mut self, target: Target, len: usize) -> Option<Grad> {
        let mut grad = self.take_for_overwrite(target, len)?;
        if grad.fresh {
            grad.fill(0.0);
            grad.fresh = false;
        }
        Some(grad)
    }

    /// Like [`Backward::take`], but a gradient that nothing was added to is not cleared: see [`Grad::fresh`].
    pub fn take_for_overwrite(&mut self, target: Target, len: usize) -> Option<Grad> {
        let (values, fresh) = match target {
            Target::Nowhere => return None,
            Target::Parameter(slot) => {
                (GradValues::Owned(std::mem::take(&mut self.grads.slots[slot])), false)
            }
            Target::Node(index) => match self.pending[index].take() {
                Some(values) => (GradValues::Pooled(values), false),
                None => (GradValues::Pooled(Buffer::scratch(len)), true),
            },
        };
        let grad = Grad { target, values, fresh };
        assert_eq!(grad.len(), len, "a gradient has the length of its tensor");
        Some(grad)
    }

    /// Puts a gradient back that was taken.
    pub fn put(&mut self, grad: Option<Grad>) {
        match grad {
            None => {}
            Some(Grad { target: Target::Parameter(slot), values: GradValues::Owned(values), .. }) => {
                self.grads.slots[slot] = values;
            }
            Some(Grad { target: Target::Node(index), values: GradValues::Pooled(values), .. }) => {
                self.pending[index] = Some(values);
            }
            Some(_) => unreachable!("parameters' gradients are owned, nodes' are pooled"),
        }
    }

    /// Adds `values` to the gradient of `target`, without a copy where they are the first.
    pub fn add(&mut self, target: Target, values: Buffer) {
        match target {
            Target::Node(index) if self.pending[index].is_none() => self.pending[index] = Some(values),
            _ => {
                let mut grad = self.take(target, values.len());
                if let Some(grad) = &mut grad {
                    kernels::rows::add_assign(grad, &values);
                }
                self.put(grad);
            }
        }
    }
}
