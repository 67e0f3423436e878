//! What values cost that a template makes: see [`super::guard`].

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, filters, functions};

use super::guard::{LONG, PAY};

/// Bytes of text that one step pays for, as the engine has it; else it pays for one value.
const TEXT: u64 = 64;

/// Gives an engine the filters that pay, and lets those of its own pay that make lists of what they are given. Two that Jinja
/// does not have are taken away.
pub(super) fn prepare(environment: &mut Environment) {
    environment.add_filter(LONG, |state: &State, value: Value| -> Result<Value, Error> {
        length(state, &value)?;
        Ok(value)
    });
    environment.add_filter(PAY, |state: &State, value: Value| -> Result<Value, Error> {
        all(state, &value)?;
        Ok(value)
    });
    environment.remove_filter("chain");
    environment.remove_filter("zip");
    environment.add_filter("__batch", filters::batch);
    environment.add_filter("__slice", filters::slice);
    environment.add_filter("__map", filters::map);
    environment.add_filter("__sum", filters::sum);
    let result = |state: &mut State, name: &str, args: Vec<Value>| -> Result<Value, Error> {
        let value = state.apply_filter(name, &args)?;
        all(state, &value)?;
        Ok(value)
    };
    environment.add_filter("batch", move |state: &mut State, args: Rest<ValueOrKwargs>| {
        result(state, "__batch", args.into_values())
    });
    environment.add_filter("slice", move |state: &mut State, args: Rest<ValueOrKwargs>| {
        result(state, "__slice", args.into_values())
    });
    environment.add_filter("map", move |state: &mut State, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        // Attributes are there already; a default is not, and comes for each item that has none.
        let default = args.last().filter(|last| last.is_kwargs()).map(|last| last.get_attr("default"));
        match default.transpose()?.is_some_and(|default| !default.is_undefined()) {
            true => result(state, "__map", args),
            false => state.apply_filter("__map", &args),
        }
    });
    environment.add_filter("sum", |state: &mut State, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        // Lists can be added up.
        args.first().map_or(Ok(()), |items| all(state, items))?;
        state.apply_filter("__sum", &args)
    });
    environment.add_function("dict", dict);
}

fn dict(state: &State, table: Option<Value>, more: Kwargs) -> Result<Value, Error> {
    let table = functions::dict(table, more)?;
    all(state, &table)?;
    Ok(table)
}

/// Pays for the length of a list.
fn length(state: &State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => state.consume_fuel(value.len().unwrap_or(0) as u64 / 2),
        _ => Ok(()),
    }
}

/// Pays for all that lies in a value, as often as it lies there.
fn all(state: &State, value: &Value) -> Result<(), Error> {
    // Values may be deeper than a stack is.
    let mut open = vec![inside(value)?];
    while let Some(items) = open.last_mut() {
        let Some(item) = items.next() else {
            open.pop();
            continue;
        };
        state.consume_fuel(1 + item.as_str().map_or(0, |text| text.len() as u64 / TEXT))?;
        if is_list_or_table(&item) {
            open.push(inside(&item)?);
        }
    }
    Ok(())
}

fn is_list_or_table(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map)
}

/// What lies in a list or a table: of a table, names and values.
fn inside(value: &Value) -> Result<Box<dyn Iterator<Item = Value>>, Error> {
    if !is_list_or_table(value) {
        return Ok(Box::new(std::iter::empty()));
    }
    let items = value.try_iter()?;
    if value.kind() != ValueKind::Map {
        return Ok(Box::new(items));
    }
    let table = value.clone();
    Ok(Box::new(items.flat_map(move |key| {
        let value = table.get_item(&key).unwrap_or_default();
        [key, value]
    })))
}
