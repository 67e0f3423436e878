//! The recipes that come along, as TOML.

/// Names and sources.
pub const RECIPES: [(&str, &str); 7] = [
    ("headline-article", include_str!("../../../recipes/headline-article.toml")),
    ("product", include_str!("../../../recipes/product.toml")),
    ("marketing", include_str!("../../../recipes/marketing.toml")),
    ("report", include_str!("../../../recipes/report.toml")),
    ("weather", include_str!("../../../recipes/weather.toml")),
    ("code", include_str!("../../../recipes/code.toml")),
    ("story", include_str!("../../../recipes/story.toml")),
];

/// The source of a recipe.
pub fn source(name: &str) -> Option<&'static str> {
    RECIPES.iter().find(|(known, _)| *known == name).map(|(_, source)| *source)
}
