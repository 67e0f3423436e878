//! Templates that loop, recurse, fill the memory or ask for files, and conversations that they refuse: each gets its own
//! error, and nothing panics.
#![forbid(unsafe_code)]

use tokenizer::chat::{ChatTemplate, Message, TemplateError};
use tokenizer::{Tokenizer, TokenizerError};

fn hi() -> Vec<Message> {
    vec![Message::new("user", "Hi"), Message::new("assistant", "Hello"), Message::new("user", "Bye")]
}

fn error(template: &str) -> TemplateError {
    let rendered = ChatTemplate::from_jinja(template).and_then(|template| template.render(&hi(), false));
    rendered.err().unwrap_or_else(|| panic!("{template} is rendered"))
}

#[test]
fn endless_work_is_stopped() {
    for template in [
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "{{ 'x' * 1000000000 }}",
        "{{ ('x' * 1000).replace('x', 'x' * 1000).replace('x', 'x' * 1000) }}",
        "{{ 'x'.zfill(1000000000000) | length }}{% for i in range(99999) %}{{ 'x'.zfill(1000) }}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% set ns = namespace(s=[]) %}{% for i in range(100000) %}{% set ns.s = [ns.s] %}{% endfor %}",
        "{% set ns = namespace(s={}) %}{% for i in range(100000) %}{% set ns.s = {'a': ns.s} %}{% endfor %}",
        "{{ range(1000000000) | list | length }}",
        "{{ range(100000) | list | tojson(indent=100) | length }}{% for i in range(1000) %}{{ range(90000) | list }}{% endfor %}",
        "{{ 'a' | indent(1000000000) }}{{ ('a\n' * 1000) | indent(100000000) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'x'.center(1000000000) }}",
    ] {
        let error = error(template);
        let known = matches!(error, TemplateError::TooMuch { .. } | TemplateError::Failed { .. });
        assert!(known, "{template}: {error}");
    }
    let loops = error("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}");
    assert!(loops.to_string().contains("without end"), "{loops}");
}

/// What costs little to write down, and would be much if it were there.
#[test]
fn what_grows_by_sharing_is_paid_for() {
    let doubled = |start: &str, double: &str, end: &str| {
        format!(
            "{{% set ns = namespace(x={start}, y={start}) %}}{{% for i in range(60) %}}{{% set ns.x = {double} %}}\
             {{% set ns.y = {double} %}}{{% endfor %}}{{{{ {end} }}}}"
        )
    };
    let ends = ["ns.x|length", "ns.x", "ns.x == ns.y", "ns.x|string|length", "ns.x|join|length", "'' ~ ns.x"];
    let mut templates = Vec::new();
    for (start, double) in [
        ("[1]", "ns.x + ns.x"),
        ("[1]", "(ns.x + ns.x)"),
        ("[1]", "ns.x + ns.x[0:]"),
        ("[1]", "ns.x|list + ns.x"),
        ("[1]", "ns.x * 2"),
        ("[1]", "2 * ns.x"),
        ("[1]", "[ns.x, ns.x]"),
        ("[1]", "(ns.x, ns.x)"),
        ("[1]", "ns.x, ns.x"),
        ("[1]", "{'a': ns.x, 'b': ns.x}"),
        ("[1]", "dict(a=ns.x, b=ns.x)"),
        ("[1]", "[ns.x]|batch(2, ns.x)|list"),
        ("[1]", "[ns.x, ns.x]|sum(start=[])"),
        ("'x'", "ns.x + ns.x"),
        ("'x'", "ns.x ~ ns.x"),
        ("'x'", "ns.x * 2"),
        ("'x'", "ns.x.replace('x', 'xx')"),
        ("'x'", "[ns.x, ns.x]|join"),
        ("'x'", "''.join([ns.x, ns.x])"),
        ("'x'", "'%s%s'|format(ns.x, ns.x)"),
        ("'x'", "'{}{}'.format(ns.x, ns.x)"),
    ] {
        templates.extend(ends.map(|end| doubled(start, double, end)));
    }
    let long = "{% set s = 'x' * 1000000 %}";
    templates.extend(
        [
            "{{ [s] * 100000 }}",
            "{{ ([s] * 100000)|join|length }}",
            "{{ '' ~ [s] * 100000 }}",
            "{{ [{}]|batch(100000, s)|join|length }}",
            "{{ ([{}] * 1000)|map(attribute='a', default=s)|join|length }}",
            "{{ ([1] * 100000000)|length }}",
            "{{ [1] * 50000000 + [1] * 50000000 + [1] * 50000000 }}",
            "{% set a = range(90000)|list %}{% for i in range(90000) %}{{ a[89999:]|length }}{% endfor %}",
            "{% macro f(x) %}{{ f(x + x) }}{% endmacro %}{{ f([1]) }}",
            "{% for x in [[1]] recursive %}{{ loop([x + x]) }}{% endfor %}",
            "{% set ns = namespace() %}{% set ns.x = ns %}{{ [ns] }}",
        ]
        .map(|rest| long.to_owned() + rest),
    );
    let straight: String = (0..60).map(|_| "{% set a = a + a %}").collect();
    templates.push(format!("{{% set a = [1] %}}{straight}{{{{ a|length }}}}"));
    templates.push(format!("{{{{ ({})|length }}}}", ["[1] * 100000000"; 40].join(" + ")));
    for template in templates {
        let error = error(&template);
        let is_known = matches!(error, TemplateError::TooMuch { .. } | TemplateError::Failed { .. });
        assert!(is_known, "{template}: {error}");
    }
}

/// Templates join lists, too, as long as a conversation is.
#[test]
fn what_grows_with_the_conversation_is_no_harm() {
    let lists = "{% set ns = namespace(all=[]) %}{% for m in messages %}{% set ns.all = ns.all + [m] %}{% endfor %}\
                 {{ ns.all|length }} {{ (messages[1:] + messages[:1])|length }}";
    let text = "{% set ns = namespace(text='') %}{% for m in messages %}\
                {% set ns.text = ns.text + m.role + ': ' + m.content + '\\n' %}{% endfor %}{{ ns.text|length }}";
    let many: Vec<Message> = (0..2000).map(|_| Message::new("user", "你好，世界".repeat(20))).collect();
    let render = |template: &str, n: usize| {
        ChatTemplate::from_jinja(template).unwrap().render(&many[..n], false).unwrap()
    };
    assert_eq!(render(lists, 2000), "2000 2000");
    assert_eq!(render(text, 100), format!("{}", 100 * (6 + 100 + 1)));
}

#[test]
fn deep_values_can_be_dropped_and_printed() {
    for depth in [50, 99, 5000] {
        let build = format!(
            "{{% set ns = namespace(s=[]) %}}{{% for i in range({depth}) %}}{{% set ns.s = [ns.s] %}}{{% endfor %}}"
        );
        for print in [
            "{{ ns.s }}",
            "{{ ns.s | tojson }}",
            "{{ ns.s | string | length }}",
            "{{ ns.s ~ '' }}",
            "{{ ns.s == ns.s }}",
        ] {
            let template = ChatTemplate::from_jinja(&(build.clone() + print));
            match template.and_then(|template| template.render(&hi(), false)) {
                Ok(text) => assert!(!text.is_empty()),
                Err(error) => assert!(depth > 90, "{error}"),
            }
        }
    }
}

#[test]
fn no_file_is_read() {
    for template in [
        "{% include '/etc/passwd' %}",
        "{% include ['a', 'b'] %}",
        "{% import 'x' as y %}{{ y.z() }}",
        "{% from 'x' import y %}",
        "{% extends 'base' %}",
    ] {
        let error = error(template);
        assert!(matches!(error, TemplateError::OtherTemplate { line: 1 }), "{template}: {error}");
        assert!(error.to_string().contains("no file is read"), "{error}");
    }
    // Not even itself, over and over.
    for template in [
        "{% include 'chat template' %}",
        "{% include 'chat template' ignore missing %}",
        "{% extends 'chat template' %}",
    ] {
        assert!(
            matches!(
                error(template),
                TemplateError::OtherTemplate { .. }
                    | TemplateError::Failed { .. }
                    | TemplateError::TooMuch { .. }
            ),
            "{template}"
        );
    }
}

#[test]
fn mistakes_name_their_line() {
    for (template, at) in [
        ("a\nb\n{% if x %}\nc", 4),
        ("\n{{ 'x' | }}", 2),
        ("{% for m in messages %}\n\n{% endif %}", 3),
        ("{{ 'unclosed }}", 1),
        ("{% nonsense %}", 1),
        ("\n\n{% generation %}x", 3),
    ] {
        let shown: String = template.chars().take(60).collect();
        match ChatTemplate::from_jinja(template) {
            Err(TemplateError::Syntax { line, .. }) => assert_eq!(line, at, "{shown}"),
            other => panic!("{shown}: {other:?}"),
        }
    }
    for template in
        ["a\n{{ 'x' | no_such }}", "a\n{{ nothing.at.all }}", "a\n{{ 1 / 0 }}", "a\n{{ 'x'.no_such() }}"]
    {
        assert!(
            matches!(error(template), TemplateError::Failed { line: 2, .. }),
            "{template}: {}",
            error(template)
        );
    }
}

/// The engine's parser goes deeper with each of these.
#[test]
fn long_templates_do_not_exhaust_the_stack() {
    let (tag, all) = ((1 << 12) - 100, (1 << 18) - 100);
    let times = |unit: &str| unit.repeat(if unit.starts_with("{%") { all } else { tag } / unit.len());
    for template in [
        format!("{{{{ {}1 }}}}", times("-")),
        format!("{{{{ {}1 }}}}", times("not ")),
        format!("{{{{ {}", times("(")),
        format!("{{{{ {}", times("[")),
        format!("{{{{ {}", times("{1:")),
        format!("{{{{ 1{} }}}}", times("+1")),
        format!("{{{{ 1{} }}}}", times("**1")),
        format!("{{{{ 1{} }}}}", times(" if 1")),
        format!("{{{{ a{} }}}}", times(".a")),
        format!("{{{{ a{} }}}}", times("[1]")),
        format!("{{{{ a{} }}}}", times("()")),
        format!("{{{{ 1{} }}}}", times("|e")),
        format!("{{{{ 1{} }}}}", times(" is a")),
        format!("{{{{ 1{} }}}}", times("==1")),
        format!("{{{{ 1{} }}}}", times("~1")),
        format!("{{{{ 1{} }}}}", times(" and 1")),
        times("{% if 1 %}"),
        format!("{{% if 1 %}}{}{{% endif %}}", times("{% elif 1 %}")),
        times("{% for a in b %}"),
        times("{% generation %}"),
        times("{{ 1 }}"),
    ] {
        let shown: String = template.chars().take(30).collect();
        match ChatTemplate::from_jinja(&template).and_then(|template| template.render(&hi(), true)) {
            Ok(text) => assert!(text.len() < template.len(), "{shown}"),
            Err(error) => assert!(error.to_string().contains("template"), "{shown}: {error}"),
        }
    }
    let error = ChatTemplate::from_jinja(&"x".repeat(1 << 19)).unwrap_err();
    assert!(matches!(error, TemplateError::TooLong { bytes: 524_288, .. }), "{error}");
    // The more is said, the more a template may do, and the deeper its values lie.
    let deep = "{% set ns = namespace(s=[]) %}{% for i in range(100000) %}{% for j in range(100000) %}\
                {% set ns.s = [ns.s] %}{% endfor %}{% endfor %}";
    let many: Vec<Message> = (0..5000).map(|_| Message::new("user", "x")).collect();
    let error = ChatTemplate::from_jinja(deep).unwrap().render(&many, false).unwrap_err();
    assert!(matches!(error, TemplateError::TooMuch { messages: 5000 }), "{error}");
}

#[test]
fn what_a_template_refuses_is_shown() {
    let strict = "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\
                  {{ raise_exception('Roles must alternate, 必须交替') }}{% endif %}{{ m.content }}{% endfor %}";
    let tokenizer = Tokenizer::gpt2().with_chat_template(Some(strict.to_owned()));
    let template = ChatTemplate::of(&tokenizer).unwrap();
    let messages = [Message::new("assistant", "Hi"), Message::new("user", "Hi")];
    for error in [
        template.render(&messages, true).unwrap_err(),
        template.prompt(&tokenizer, &messages).unwrap_err(),
        template.conversation(&tokenizer, &messages).unwrap_err(),
    ] {
        assert_eq!(
            error.to_string(),
            "the chat template refuses this conversation: Roles must alternate, 必须交替"
        );
    }
    // Within a macro, too.
    let inside = "{% macro f() %}{{ raise_exception('deep') }}{% endmacro %}{{ f() }}";
    assert!(matches!(error(inside), TemplateError::Refused { message } if message == "deep"));
    // Unknown roles and empty words are the template's business.
    let odd = [Message::new("", ""), Message::new("旁白", " "), Message::new("user", "")];
    for template in [ChatTemplate::chatml(), ChatTemplate::plain()] {
        template.prompt(&Tokenizer::gpt2(), &odd).unwrap();
        template.conversation(&Tokenizer::gpt2(), &odd).unwrap();
    }
}

#[test]
fn templates_in_which_answers_cannot_be_found() {
    let tokenizer = Tokenizer::gpt2();
    let says = |template: &str, messages: &[Message]| {
        let template = ChatTemplate::from_jinja(template).unwrap();
        template.conversation(&tokenizer, messages).unwrap_err()
    };
    // The prompt has words that a conversation does not have.
    let other = "{% for m in messages %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}Think first:{% endif %}";
    let error = says(other, &hi());
    assert!(matches!(error, TemplateError::Prefix { number: 2 }), "{error}");
    assert!(error.to_string().contains("{% generation %}"), "{error}");
    // What is said later changes what was written before.
    let last = "{{ messages | length }}{% for m in messages %}{{ m.content }}\n{% endfor %}";
    assert!(matches!(says(last, &hi()), TemplateError::Prefix { number: 2 }));
    // It looks for the name of a special token.
    let looks = "{% for m in messages %}{{ 'seen' if '<|endoftext|>' in m.content }}{{ m.content[:20] }}{{ m.content | length }}{% endfor %}";
    let named = [Message::new("user", "a<|endoftext|>b")];
    assert!(matches!(says(looks, &named), TemplateError::SpecialName), "{}", says(looks, &named));
}

#[test]
fn special_tokens_that_cannot_be() {
    let tokenizer = Tokenizer::gpt2();
    for name in ["", " ", "\n"] {
        let error = tokenizer.with_special_tokens(&[name]).unwrap_err();
        assert!(matches!(error, TokenizerError::SpecialToken { .. }), "{error}");
    }
    let same = tokenizer.with_special_tokens(&["<|endoftext|>"]).unwrap();
    assert!(same.is_same_as(&tokenizer));
}
