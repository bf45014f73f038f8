//! From a command to words.

use super::super::command::{CommandError, words};

fn split(command: &str) -> Vec<String> {
    words(command, &Vec::new()).unwrap()
}

#[test]
fn words_are_split_as_by_a_shell_but_nothing_else_is_done() {
    for (command, expected) in [
        ("a", &["a"][..]),
        ("  a   b\t c\n", &["a", "b", "c"]),
        ("a 'b c' \"d e\"", &["a", "b c", "d e"]),
        ("a'b'\"c\"d", &["abcd"]),
        ("a '' \"\"", &["a", "", ""]),
        (r"a\ b c\\d \'e", &["a b", r"c\d", "'e"]),
        (r#"a "b \" \\ \x" '\n'"#, &["a", r#"b " \ \x"#, r"\n"]),
        ("a\\\nb \"c\\\nd\"", &["ab", "cd"]),
        ("a #b | c > d; e && f *", &["a", "#b", "|", "c", ">", "d;", "e", "&&", "f", "*"]),
        ("ffmpeg -i 'rtsp://h/é ü'", &["ffmpeg", "-i", "rtsp://h/é ü"]),
    ] {
        assert_eq!(split(command), expected, "{command}");
    }
}

#[test]
fn a_command_that_cannot_be_split_is_told_why() {
    for (command, expected) in [
        ("sh -c \"unbalanced", CommandError::Unterminated("double quote")),
        ("sh -c \"unbalanced\\", CommandError::Unterminated("double quote")),
        ("sh -c 'unbalanced", CommandError::Unterminated("single quote")),
        ("sh \\", CommandError::TrailingBackslash),
        ("", CommandError::Empty),
        (" \n ", CommandError::Empty),
        ("'' a", CommandError::NoProgram),
        ("$NOT_THERE_AT_ALL a", CommandError::NoProgram),
    ] {
        assert_eq!(words(command, &Vec::new()).unwrap_err(), expected, "{command}");
    }
}

#[test]
fn variables_come_from_the_hook_then_from_the_environment_and_are_else_empty() {
    let variables = [("MTX_PATH", "cam/1"), ("G1", "old"), ("G1", "one"), ("PATH", "ours"), ("1", "digit")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    for (word, expected) in [
        ("$MTX_PATH", "cam/1"),
        ("${MTX_PATH}x", "cam/1x"),
        ("$MTX_PATHx", ""),
        ("a$G1.b", "aone.b"),
        ("'$G1'", "one"),
        ("$PATH", "ours"),
        ("$1x", "digitx"),
        ("${1}", "digit"),
        ("a$", "a$"),
        ("a$,b", "a$,b"),
        ("$$x", "x"),
        ("a${}b", "ab"),
        ("a${G1", "aG1"),
        ("'${G1 }'", ""),
        ("é$G1é", "éoneé"),
    ] {
        assert_eq!(words(&format!("p {word}"), &variables).unwrap()[1], expected, "{word}");
    }
    let home = words("p $CARGO_PKG_NAME", &variables).unwrap();
    assert_eq!(home[1], std::env::var("CARGO_PKG_NAME").unwrap_or_default());
}

#[test]
fn a_value_stays_one_word_whatever_it_holds() {
    let evil = "a b'c\"d\ne $G1 ${G1} \\ ; rm -rf / | `x` $(y)".to_owned();
    let variables = vec![("EVIL".to_owned(), evil.clone()), ("G1".to_owned(), "no".to_owned())];
    assert_eq!(words("p $EVIL \"-${EVIL}-\"", &variables).unwrap(), ["p", &evil, &format!("-{evil}-")]);
}
