//! What the shared JSON access gives for good, odd and hostile text.

use super::*;

#[track_caller]
fn check_price(text: &str, expected: Result<&str, Fault>) {
    let frame = format!(r#"{{"p":{text}}}"#);
    let root = parse(frame.as_bytes()).expect(text);
    let got = price("p", root.get("p").as_ref());
    let expected = expected.map(|price| match price {
        "" => Field::Empty,
        digits => Field::At(Price::parse(digits.as_bytes()).expect(digits)),
    });
    assert_eq!(got, expected, "{text}");
}

#[test]
fn prices_are_read_from_their_text() {
    for (text, expected) in [
        (r#""67123.450""#, "67123.450"),
        ("67123.450", "67123.450"),
        ("0.00044780", "0.00044780"),
        ("5.1e-05", "0.000051"),
        (r#""0""#, "0"),
        (r#""""#, ""),
        ("null", ""),
        (r#""\u0031.5""#, "1.5"),
    ] {
        check_price(text, Ok(expected));
    }
    let root = parse(b"{}").expect("an object");
    assert_eq!(price("p", root.get("p").as_ref()), Ok(Field::Unchanged));
    let root = parse(br#"{"p":"0.000"}"#).expect("an object");
    assert_eq!(price_zero_absent("p", root.get("p").as_ref()), Ok(Field::Empty));
}

#[test]
fn what_is_no_price_is_refused() {
    let many = "9".repeat(10_000);
    for (text, fault) in [
        (r#""NaN""#, Fault::BadPrice("p", PriceRefused::NotANumber)),
        (r#""-Infinity""#, Fault::BadPrice("p", PriceRefused::NotANumber)),
        ("1e308", Fault::BadPrice("p", PriceRefused::TooLarge)),
        (many.as_str(), Fault::BadPrice("p", PriceRefused::TooLarge)),
        ("-1.5", Fault::Negative("p")),
        ("true", Fault::Wrong("p", "a string or a number")),
        ("[1]", Fault::Wrong("p", "a string or a number")),
        (r#""\ud800""#, Fault::Wrong("p", "a string or a number")),
    ] {
        check_price(text, Err(fault));
    }
}

#[test]
fn what_is_no_json_is_refused() {
    let syntax = |fault: &Fault| matches!(fault, Fault::Syntax(_));
    for text in ["", " ", "pong", "{", "{}}", "{]", "[1,]", r#"{"a":NaN}"#, r#"{"a":01}"#, r#""\uZZZZ""#, r#""\q""#] {
        assert!(parse(text.as_bytes()).is_err_and(|fault| syntax(&fault)), "{text}");
    }
    assert_eq!(parse(b"{\"a\":\"\xff\"}").err(), Some(Fault::NotUtf8));
    let large = vec![b' '; FRAME_BYTES_MAX + 1];
    assert_eq!(parse(&large).err(), Some(Fault::TooLarge(large.len())));
    for (depth, good) in [(DEPTH_MAX, true), (DEPTH_MAX + 1, false), (500_000, false)] {
        let text = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(parse(text.as_bytes()).err(), (!good).then_some(Fault::TooDeep));
    }
}

#[test]
fn fields_are_found_whatever_their_order_and_the_last_counts() {
    let root = parse(br#" {"b":[1,"2",{"c":null}],"a":"x\"y","a":"z","u":18446744073709551615} "#).expect("good");
    let [a, b, none] = root.pick(["a", "b", "none"]);
    assert_eq!(a.and_then(|a| a.text().map(Cow::into_owned)).as_deref(), Some("z"));
    assert!(none.is_none());
    let items: Vec<_> = b.expect("b").items().collect();
    assert_eq!(items[0].whole(), Some(1));
    assert_eq!(items[1].whole(), Some(2));
    assert!(items[2].get("c").is_some_and(|c| c.is_null()));
    assert_eq!(root.get("u").and_then(|u| u.whole()), Some(u64::MAX));
    assert_eq!(root.items().count(), 0, "an object has no items");
}

#[test]
fn white_space_is_no_part_of_a_value() {
    let root = parse(b"{ \"n\" : 1.50 \n, \"a\": [ 7\t, \"x\" , true ] , \"last\": 12\r\n}").expect("good");
    assert_eq!(price("n", root.get("n").as_ref()), Ok(Field::At(Price::new(150, -2))));
    assert_eq!(root.get("last").and_then(|last| last.whole()), Some(12));
    let items: Vec<_> = root.get("a").iter().flat_map(Json::items).map(|item| item.raw().into_owned()).collect();
    assert_eq!(items, ["7", "\"x\"", "true"]);
}

#[test]
fn whole_numbers_are_digits_alone() {
    for (text, whole, part) in [
        ("1790359171119", Some(1_790_359_171_119), Some(1_790_359_171_119)),
        (r#""1790359171119.653000""#, None, Some(1_790_359_171_119)),
        ("-1", None, None),
        (r#""+1""#, None, None),
        ("1.5e3", None, None),
        (r#""1.""#, None, None),
        ("18446744073709551616", None, None),
        (r#""""#, None, None),
        ("null", None, None),
    ] {
        let value = parse(text.as_bytes()).expect(text);
        assert_eq!((value.whole(), value.whole_part()), (whole, part), "{text}");
    }
}

#[test]
fn text_is_quoted_for_sending() {
    assert_eq!(quoted_list(["BTC-USD", "a\"b\n"]), r#"["BTC-USD","a\"b\n"]"#);
    assert_eq!(clip("aä", 2), "a");
}
