//! What tests of schemas share.

use serde_json::Value;

/// Returns the fields that a schema names, wherever in it.
pub(crate) fn field_names(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(object) => {
            let properties = object.get("properties").and_then(Value::as_object);
            let own = properties.into_iter().flat_map(|properties| properties.keys().cloned());
            own.chain(object.values().flat_map(field_names)).collect()
        }
        Value::Array(items) => items.iter().flat_map(field_names).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// Returns the fields of a schema that a document does not name.
pub(crate) fn missing(schema: &Value, document: &str) -> Vec<String> {
    let names = field_names(schema).into_iter();
    names.filter(|name| !document.contains(&format!("`{name}`"))).collect()
}
