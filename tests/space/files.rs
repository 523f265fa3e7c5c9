//! Space files: what is accepted, and what is said about the rest.

use super::{rng, spaces};
use foretell::space::Space;
use std::path::Path;

fn small() -> String {
    Space::builtin("small").unwrap().to_toml()
}

fn error_of(text: &str) -> String {
    Space::parse(Path::new("my.toml"), text).unwrap_err().to_string()
}

#[test]
fn bundled_spaces_survive_writing_and_reading() {
    for space in spaces() {
        assert_eq!(
            Space::parse(Path::new("copy.toml"), &space.to_toml()).unwrap(),
            space,
            "{}",
            space.name()
        );
    }
    let names: Vec<_> = spaces().iter().map(|space| space.name().to_owned()).collect();
    assert_eq!(names, Space::builtin_names().collect::<Vec<_>>());
}

#[test]
fn a_wrong_setting_is_named_with_line_and_valid_values() {
    let cases = [
        ("count = [4, 8]", "count = [8, 4]", &["`cells.count` is [8, 4]", "1 <= least <= most <= 100"][..]),
        ("count = [4, 8]", "count = [0, 8]", &["`cells.count` is [0, 8]"]),
        (
            "count = [4, 8]",
            "cuont = [4, 8]",
            &["unknown key `cuont` in section [cells]", "did you mean `count`?"],
        ),
        ("count = [4, 8]", "", &["`cells.count` is missing"]),
        (
            "count = [4, 8]",
            "count = [4, 8]\nflavour = 1",
            &["unknown key `flavour`", "valid keys: count, deep_above"],
        ),
        ("[cells]", "[sells]", &["unknown key `sells`", "did you mean `cells`?"]),
        ("[width]\n", "[width]\nchannels = [16]\n", &["duplicate key"]),
        ("\"msa\"", "\"mas\"", &["`ops.normal` is \"mas\"", "max_pool_3x3", "did you mean `msa`?"]),
        ("\"msa\"", "\"cse\"", &["`ops.normal` is \"cse\"", "every entry once"]),
        ("\"msa\"", "3", &["`ops.normal` is 3", "one of none"]),
        ("channels = [16, 24, 32]", "channels = []", &["`width.channels` is []", "a list of one or more of"]),
        (
            "channels = [16, 24, 32]",
            "channels = [16, 25]",
            &["`width.channels` is 25", "even numbers from 8"],
        ),
        ("channels = [16, 24, 32]", "channels = 16", &["`width.channels` is 16"]),
        ("type = [0, 1]", "type = [0, 2]", &["`stem.type` is 2", "0, 1"]),
        ("pool = 0.75", "pool = 1.5", &["`stem.pool` is 1.5", "a probability from 0 to 1"]),
        ("pool = 0.75", "pool = \"often\"", &["`stem.pool` is \"often\""]),
        ("input_size = 32", "input_size = 64", &["`input_size` is 64", "32 or 224"]),
        ("max_params = 500000", "max_params = 0", &["`limits.max_params` is 0"]),
        ("max_params = 500000", "max_params = -5", &["`limits.max_params` is -5"]),
        ("name = \"small\"", "name = small", &["line 1:"]),
        ("name = \"small\"", "name = \"\"", &["`name` is \"\"", "a name that is not empty"]),
    ];
    let text = small();
    for (found, wrong, expected) in cases {
        let at = text.find(found).unwrap_or_else(|| panic!("{found} is not in small.toml"));
        let line = text[..at].matches('\n').count() + 1;
        let message = error_of(&text.replacen(found, wrong, 1));
        assert!(message.starts_with("my.toml: line "), "{message}");
        for part in expected {
            assert!(message.contains(part), "{wrong}: {message}");
        }
        // Missing keys are reported where their section begins, added and repeated ones where they stand.
        let near = (line.saturating_sub(2)..=line + 2).any(|line| message.contains(&format!("line {line}:")));
        assert!(near, "{wrong} stands in line {line}: {message}");
    }
}

#[test]
fn lists_of_operations_that_hold_no_network_are_refused() {
    let text = small();
    let list = |key: &str, ops: &str| {
        let start = text.find(&format!("\n{key} = [")).unwrap() + 1;
        let end = start + text[start..].find('\n').unwrap();
        format!("{}{key} = [{ops}]{}", &text[..start], &text[end..])
    };
    assert!(error_of(&list("normal", "\"none\"")).contains("beside `none`"));
    assert!(error_of(&list("reduce", "\"none\", \"conv_3x3\"")).contains("expected 0, because"));
    let plain = list("normal", "\"skip_connect\"").replace("plain_reduce = 0.5", "plain_reduce = 1");
    assert!(error_of(&plain).contains("at least one convolution or msa"));
}

#[test]
fn a_missing_file_and_an_unknown_name_are_told_apart() {
    let message = Space::find("no/such/space.toml").unwrap_err().to_string();
    assert!(message.starts_with("cannot read no/such/space.toml"), "{message}");
    let message = Space::find("smal").unwrap_err().to_string();
    assert!(message.contains("did you mean `small`?") && message.contains("deepnets1m"), "{message}");
}

#[test]
fn an_impossible_limit_ends_in_an_error_that_says_what_there_is() {
    let text = small().replace("max_params = 500000", "max_params = 100");
    let space = Space::parse(Path::new("my.toml"), &text).unwrap();
    let message = space.sample(&mut rng(1)).unwrap_err().to_string();
    assert!(message.contains("5000 draws") && message.contains("above max_params (smallest: "), "{message}");
}

#[test]
fn a_narrowed_space_holds_only_what_it_allows() {
    let text = small()
        .replace("count = [4, 8]", "count = [5, 5]")
        .replace("steps = [1, 3]", "steps = [2, 2]")
        .replace("channels = [16, 24, 32]", "channels = [24]")
        .replace("type = [0, 1]", "type = [1]");
    let space = Space::parse(Path::new("my.toml"), &text).unwrap();
    for seed in 0..50 {
        let arch = space.sample(&mut rng(seed)).unwrap();
        assert_eq!((arch.n_cells, arch.genotype.steps(), arch.channels, arch.stem_type), (5, 2, 24, 1));
        assert!(!arch.stem_pool);
    }
}
