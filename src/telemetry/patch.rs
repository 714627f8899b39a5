//! What changed between two pictures, so that a reader of a running node gets little more than that.
//!
//! Works on JSON values: whatever a picture holds later needs no code here. `apply(old, diff(old, new))` is
//! `new` for any two values; a test tries many. Deliberately absent: anything that knows what a picture is.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Rows a list may slide by to be recognised as the same list: a picture loses a few at a time.
const SLIDE_MAX: usize = 16;
/// Longest list that is made; the longest of a picture has some hundred rows.
pub const LIST_MAX: usize = 1 << 16;

/// How one value becomes another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Patch {
    /// It is this now.
    Set(Value),
    /// An object: fields that changed or are new, and those that are gone.
    Fields {
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        change: BTreeMap<String, Patch>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remove: Vec<String>,
    },
    /// A list: `drop` rows go from the front, the next `keep` stay, but for changes by their new index, and
    /// `append` follows.
    Rows {
        #[serde(default)]
        drop: usize,
        keep: usize,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        change: Vec<(usize, Patch)>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        append: Vec<Value>,
    },
}

/// A patch that does not fit the value it is applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a change does not fit what it changes: {0}")]
pub struct PatchError(&'static str);

/// What turns `old` into `new`; `None` when they are equal. Cost: linear in both.
#[must_use]
pub fn diff(old: &Value, new: &Value) -> Option<Patch> {
    if old == new {
        return None;
    }
    Some(match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let remove: Vec<String> = old.keys().filter(|key| !new.contains_key(*key)).cloned().collect();
            let change: BTreeMap<String, Patch> = new
                .iter()
                .filter_map(|(key, value)| {
                    let patch = match old.get(key) {
                        Some(before) => diff(before, value),
                        None => Some(Patch::Set(value.clone())),
                    };
                    Some((key.clone(), patch?))
                })
                .collect();
            let all_set = change.values().all(|patch| matches!(patch, Patch::Set(_)));
            // Nothing stays: the whole is shorter.
            if all_set && change.len() == new.len() {
                Patch::Set(Value::Object(new.clone()))
            } else {
                Patch::Fields { change, remove }
            }
        }
        (Value::Array(old), Value::Array(new)) => diff_rows(old, new),
        _ => Patch::Set(new.clone()),
    })
}

fn diff_rows(old: &[Value], new: &[Value]) -> Patch {
    let slid = (1..=SLIDE_MAX.min(old.len())).find(|drop| {
        let rest = old.get(*drop..).unwrap_or_default();
        !rest.is_empty() && new.starts_with(rest)
    });
    if let Some(drop) = slid {
        let keep = old.len() - drop;
        return Patch::Rows {
            drop,
            keep,
            change: Vec::new(),
            append: new.get(keep..).unwrap_or_default().to_vec(),
        };
    }
    let keep = old.len().min(new.len());
    let pairs = old.iter().zip(new).enumerate();
    let change: Vec<(usize, Patch)> =
        pairs.filter_map(|(index, (old, new))| Some((index, diff(old, new)?))).collect();
    if change.iter().all(|(_, patch)| matches!(patch, Patch::Set(_))) && change.len() == keep {
        return Patch::Set(Value::Array(new.to_vec()));
    }
    Patch::Rows { drop: 0, keep, change, append: new.get(keep..).unwrap_or_default().to_vec() }
}

/// Changes `value` by `patch`.
///
/// # Errors
/// [`PatchError`]; `value` is then neither the old nor the new one, and a whole picture is needed.
pub fn apply(value: &mut Value, patch: Patch) -> Result<(), PatchError> {
    match patch {
        Patch::Set(new) => *value = new,
        Patch::Fields { change, remove } => {
            let fields = value.as_object_mut().ok_or(PatchError("fields of what is no object"))?;
            for key in remove {
                fields.remove(&key);
            }
            for (key, patch) in change {
                apply(fields.entry(key).or_insert(Value::Null), patch)?;
            }
        }
        Patch::Rows { drop, keep, change, append } => {
            let rows = value.as_array_mut().ok_or(PatchError("rows of what is no list"))?;
            let end = drop.checked_add(keep).filter(|end| *end <= rows.len());
            let end = end.ok_or(PatchError("more rows are kept than there are"))?;
            if keep.saturating_add(append.len()) > LIST_MAX {
                return Err(PatchError("a list that is too long"));
            }
            rows.truncate(end);
            rows.drain(..drop);
            for (index, patch) in change {
                apply(rows.get_mut(index).ok_or(PatchError("a row that is not there"))?, patch)?;
            }
            rows.extend(append);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use serde_json::json;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0u8..4).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_changed_turns_the_one_into_the_other(old in values(), new in values()) {
            let mut value = old.clone();
            if let Some(patch) = diff(&old, &new) {
                let sent = serde_json::to_string(&patch).unwrap();
                apply(&mut value, serde_json::from_str(&sent).unwrap()).unwrap();
            }
            prop_assert_eq!(value, new);
        }

        #[test]
        fn no_change_breaks_a_value_it_does_not_fit(old in values(), new in values(), other in values()) {
            let mut other = other;
            if let Some(patch) = diff(&old, &new) {
                let _misfit = apply(&mut other, patch);
            }
        }
    }

    #[test]
    fn a_ring_that_slides_costs_the_rows_that_are_new() {
        let old = json!({ "ring": (0..100).collect::<Vec<u32>>(), "name": "north", "height": 7 });
        let new = json!({ "ring": (3..103).collect::<Vec<u32>>(), "name": "north", "height": 8 });
        let patch = diff(&old, &new).unwrap();
        let sent = serde_json::to_string(&patch).unwrap();
        assert!(sent.contains("[100,101,102]") && sent.len() < 120, "{sent}");
        assert_eq!(diff(&new, &new), None);
    }

    #[test]
    fn a_change_of_more_than_there_is_is_refused() {
        let rows = |drop, keep, change| Patch::Rows { drop, keep, change, append: Vec::new() };
        for patch in [
            rows(2, usize::MAX, Vec::new()),
            rows(0, 3, Vec::new()),
            rows(0, 2, vec![(2, Patch::Set(Value::Null))]),
            Patch::Fields { change: BTreeMap::new(), remove: vec!["a".to_owned()] },
            Patch::Rows { drop: 0, keep: 2, change: Vec::new(), append: vec![Value::Null; LIST_MAX] },
        ] {
            assert!(apply(&mut json!([1, 2]), patch.clone()).is_err(), "{patch:?}");
        }
    }
}
