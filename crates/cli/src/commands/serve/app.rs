//! The page of a server: whether there is one, and where its conversations are kept.

use std::path::PathBuf;

use anyhow::Result;
use serve::App;
use serve::chats::Chats;
use serve::desk::write::Recipes;

use crate::commands::write::recipes;

/// Flags of the page.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Web page")]
pub struct AppArgs {
    /// Keep the page's conversations in this SQLite file, which only you can read [default: they are not kept]
    #[arg(long, value_name = "FILE", conflicts_with = "no_page")]
    history: Option<PathBuf>,
    /// Serve the API alone, without the page
    #[arg(long)]
    no_page: bool,
}

impl AppArgs {
    /// The page, with its history open.
    pub fn open(&self) -> Result<App> {
        if self.no_page {
            return Ok(App::default().without_page());
        }
        let app = App::default().with_recipes(Recipes::new(recipes::own()?));
        Ok(match &self.history {
            Some(path) => app.with_history(Chats::open(path)?),
            None => app,
        })
    }
}
