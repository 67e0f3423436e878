//! The tape: operations record how to go back, and [`Tape::backward`] walks them in reverse.
//!
//! The chain rule in one sentence: a node that made `out` from `x` is handed `dout`, the gradient of the loss by
//! `out`, and adds to `dx`. Gradients are always summed, never overwritten, since a tensor may be used twice.
//! The tape owns the parameters' gradients ([`Grads`]) from [`Tape::new`] until the end of the backward pass, so
//! that an operation may also add to them early (see [`crate::ops::lm_loss()`]).

use std::sync::{Arc, Mutex, MutexGuard};

use kernels::activation::Activation;
use kernels::gemm::Output;

use crate::memory::Buffer;
use crate::storage::Storage;
use crate::tensor::{Origin, Tensor};

/// One gradient buffer for every parameter, in the model's order.
#[derive(Clone, Debug, Default)]
pub struct Grads {
    slots: Vec<Vec<f32>>,
    /// Slots to overwrite: what they hold counts as zero.
    stale: Vec<bool>,
}

impl Grads {
    /// Zeros, one buffer for each length.
    pub fn new(lens: &[usize]) -> Grads {
        Grads { slots: lens.iter().map(|&len| vec![0.0; len]).collect(), stale: vec![false; lens.len()] }
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
    ///
    /// # Panics
    /// Between [`Grads::forget`] and the next backward pass.
    pub fn slot(&self, slot: usize) -> &[f32] {
        assert!(!self.stale[slot], "gradients are read after a backward pass");
        &self.slots[slot]
    }

    /// The gradient of one parameter, to change.
    pub fn slot_mut(&mut self, slot: usize) -> &mut [f32] {
        self.settle(slot);
        &mut self.slots[slot]
    }

    /// Sets every gradient to zero, without touching it: the next backward pass overwrites where it would add.
    pub fn forget(&mut self) {
        self.stale.fill(true);
    }

    /// Makes a slot hold what it counts as.
    fn settle(&mut self, slot: usize) {
        if std::mem::take(&mut self.stale[slot]) {
            self.slots[slot].fill(0.0);
        }
    }
}

/// Where a gradient belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Nowhere,
    Parameter(usize),
    Node(usize),
}

type BackwardFn = Box<dyn FnOnce(Storage, &mut Backward) + Send>;

#[derive(Default)]
struct Recording {
    nodes: Vec<Node>,
    grads: Grads,
}

struct Node {
    backward: BackwardFn,
    /// For an activation: the node wants the gradient by what it was made from, and who computes it multiplies by the
    /// slope.
    pre: Option<Pre>,
}

/// What an activation was made from: its node's output is `activation(values)`.
#[derive(Clone)]
pub(crate) struct Pre {
    pub activation: Activation,
    pub values: Arc<Storage>,
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
        backward: impl FnOnce(Storage, &mut Backward) + Send + 'static,
    ) -> Tensor {
        self.record_activated(out, None, backward)
    }

    /// [`Tape::record`] for `out = activation(pre)`, which goes into linear layers only: these multiply the gradient by the
    /// activation's slope while they compute it, so that `backward` is handed the gradient by `pre`.
    pub(crate) fn record_activated(
        &self,
        out: Tensor,
        pre: Option<Pre>,
        backward: impl FnOnce(Storage, &mut Backward) + Send + 'static,
    ) -> Tensor {
        let mut recording = self.lock();
        recording.nodes.push(Node { backward: Box::new(backward), pre });
        let index = recording.nodes.len() - 1;
        drop(recording);
        out.with_origin(Origin::Node(self.clone(), index))
    }

    /// `x` as the first node of a computation: its gradient goes on to wherever `x` sends it.
    pub fn input(&self, x: &Tensor) -> Tensor {
        let target = x.target();
        self.record(x.clone(), move |dout, back| back.add(target, dout))
    }

    /// Adds to one parameter's gradient while still recording; where the flag is set, it overwrites.
    pub(crate) fn with_parameter_grad(&self, slot: usize, f: impl FnOnce(&mut [f32], bool)) {
        let grads = &mut self.lock().grads;
        let stale = std::mem::take(&mut grads.stale[slot]);
        f(&mut grads.slots[slot], stale);
    }

    /// Walks back from `out`, whose gradient is `dout`, and hands out the parameters' gradients.
    ///
    /// Each node's saved values are freed as soon as they have been used.
    ///
    /// # Panics
    /// If `out` was not recorded on this tape or `dout` has another length.
    pub fn backward(self, out: &Tensor, dout: Vec<f32>) -> Grads {
        let mut back = self.walk_to(out, Storage::F32(dout.into()), 0);
        (0..back.grads.len()).for_each(|slot| back.grads.settle(slot));
        back.grads
    }

    /// Walks back from `out` to node number `first`, which is not called.
    fn walk_to(self, out: &Tensor, dout: Storage, first: usize) -> Backward {
        let Target::Node(last) = out.target() else { panic!("backward starts at a recorded tensor") };
        assert_eq!(out.len(), dout.len(), "dout has the length of out");
        let Recording { mut nodes, grads } = std::mem::take(&mut *self.lock());
        nodes.truncate(last + 1);
        let pre = nodes.iter_mut().map(|node| node.pre.take()).collect();
        let mut back = Backward { pending: (0..nodes.len()).map(|_| None).collect(), pre, grads };
        back.pending[last] = Some(dout.into_precision(out.precision()));
        while nodes.len() > first
            && let Some(node) = nodes.pop()
        {
            back.pre.truncate(nodes.len());
            if let Some(dout) = back.pending[nodes.len()].take() {
                (node.backward)(dout, &mut back);
            }
        }
        back
    }

    /// Records `out`, which was computed from `x` without being recorded, so that only `x` is kept: the way back
    /// calls `again` to compute it once more, on a tape of its own, and walks through that (Chen et al., 2016).
    pub fn recomputed(
        &self,
        x: &Tensor,
        out: Tensor,
        again: impl FnOnce(Tape, Tensor) -> Tensor + Send + 'static,
    ) -> Tensor {
        let (input, target) = (x.clone().constant(), x.target());
        self.record(out, move |dout, back| {
            let tape = Tape::new(std::mem::take(&mut back.grads));
            let input = tape.input(&input);
            let out = again(tape.clone(), input);
            let mut inner = tape.walk_to(&out, dout, 1);
            back.grads = inner.grads;
            if let Some(dx) = inner.pending[0].take() {
                back.add(target, dx);
            }
        })
    }
}

/// The gradients that are still on their way back.
pub(crate) struct Backward {
    pending: Vec<Option<Storage>>,
    pre: Vec<Option<Pre>>,
    grads: Grads,
}

/// One `f32` gradient taken out of [`Backward`] to be added to, and put back after.
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

impl Grad {
    /// Where a product that is the gradient, or a part of it, goes.
    pub fn output(&mut self) -> Output<'_> {
        if self.fresh { Output::Set(self) } else { Output::Add(self) }
    }
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
    /// What an activation was made from, where the target is one: see [`Tape::record_activated`].
    pub fn pre(&self, target: Target) -> Option<Pre> {
        match target {
            Target::Node(index) => self.pre[index].clone(),
            _ => None,
        }
    }

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
                let fresh = std::mem::take(&mut self.grads.stale[slot]);
                (GradValues::Owned(std::mem::take(&mut self.grads.slots[slot])), fresh)
            }
            Target::Node(index) => match self.pending[index].take() {
                Some(values) => (GradValues::Pooled(values.into_f32()), false),
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
                assert!(self.pre[index].is_none(), "an activation goes into linear layers only");
                self.pending[index] = Some(values.into());
            }
            Some(_) => unreachable!("parameters' gradients are owned, nodes' are pooled"),
        }
    }

    /// Adds `values` to the gradient of `target`, without a copy where they are the first.
    pub fn add(&mut self, target: Target, values: Storage) {
        match target {
            Target::Node(index) if self.pending[index].is_none() => self.pending[index] = Some(values),
            Target::Node(index) => {
                let before = self.pending[index].take().expect("the other arm has taken those without");
                let precision = before.precision();
                let mut sum = before.into_f32();
                kernels::rows::add_assign(&mut sum, &values.into_f32());
                self.pending[index] = Some(Storage::F32(sum).into_precision(precision));
            }
            _ => {
                let mut grad = self.take(target, values.len());
                if let Some(grad) = &mut grad {
                    kernels::rows::add_assign(grad, &values.into_f32());
                }
                self.put(grad);
            }
        }
    }
}
