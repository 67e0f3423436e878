//! The names that `config.json` gives to activation functions.

use serde::{Deserialize, Deserializer, Serializer, de::Error};
use tensor::Activation;

/// Names in transformers; the first of a function is the one that is written. Several are ways of computing the same.
const NAMES: [(&str, Activation); 14] = [
    ("gelu_new", Activation::GeluNew),
    ("gelu_fast", Activation::GeluNew),
    ("gelu_accurate", Activation::GeluNew),
    ("gelu_pytorch_tanh", Activation::GeluNew),
    ("gelu_python_tanh", Activation::GeluNew),
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("quick_gelu", Activation::QuickGelu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("relu", Activation::Relu),
    ("relu2", Activation::Relu2),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
];

/// The function's name.
pub(crate) fn name(activation: Activation) -> &'static str {
    let named = NAMES.iter().find(|(_, known)| *known == activation);
    named.expect("every function has a name").0
}

/// The function of this name.
pub(crate) fn from_name(name: &str) -> Option<Activation> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
}

/// All names, for an error.
pub(crate) fn known() -> String {
    NAMES.map(|(name, _)| name).join(", ")
}

/// For serde: a function is written by its name.
pub(crate) fn serialize<S: Serializer>(activation: &Activation, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name(*activation))
}

/// For serde.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Activation, D::Error> {
    let name = String::deserialize(from)?;
    from_name(&name).ok_or_else(|| D::Error::custom(format!("there is no activation function {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_name_that_means_it() {
        for activation in Activation::ALL {
            assert_eq!(from_name(name(activation)), Some(activation));
        }
        assert_eq!(from_name("gelu_fast").map(name), Some("gelu_new"));
        assert_eq!(from_name("GELU"), None);
    }
}
