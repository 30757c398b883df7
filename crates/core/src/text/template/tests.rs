//! Tests of chat templates: their input, and the limits of an untrusted one.

use super::*;

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] \
    + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const LLAMA: &str = "{{- bos_token }}\n{%- for message in messages %}\n    {{- '<|start_header_id|>' + message.role \
    + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}\n{%- endfor %}\n\
    {%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\n{%- endif %}\n";
const GEMMA: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
    {{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}\
    {{ '<start_of_turn>' + message['role'] + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}";

fn parse(source: &str) -> ChatTemplate {
    let specials = Specials { bos: Some("<s>".to_owned()), ..Specials::default() };
    ChatTemplate::parse("test", source, specials).unwrap()
}

fn chat(turns: &[(ChatRole, &str)]) -> Vec<Message> {
    turns.iter().map(|&(role, content)| Message::new(role, content)).collect()
}

fn render(source: &str, turns: &[(ChatRole, &str)]) -> Result<String> {
    parse(source).render(&chat(turns))
}

fn message_of(error: Error) -> String {
    match error {
        Error::Template { name, message } if name == "test" => message,
        other => panic!("{other}"),
    }
}

const QUESTION: &[(ChatRole, &str)] = &[(ChatRole::User, "Hi ")];
const ANSWER: &[(ChatRole, &str)] = &[(ChatRole::User, "Hi"), (ChatRole::Assistant, " Once upon \n")];

#[test]
fn a_question_gets_a_generation_prompt_and_an_answer_is_continued() {
    assert_eq!(render(CHATML, QUESTION).unwrap(), "<|im_start|>user\nHi <|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(
        render(CHATML, ANSWER).unwrap(),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n Once upon \n",
        "a template that keeps white space"
    );
    assert_eq!(
        render(LLAMA, QUESTION).unwrap(),
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    assert!(render(LLAMA, ANSWER).unwrap().ends_with("\n\nOnce upon"), "a template that trims");
    let empty = [(ChatRole::User, "Hi"), (ChatRole::Assistant, "")];
    assert!(render(CHATML, &empty).unwrap().ends_with("<|im_start|>assistant\n"));
}

#[test]
fn a_message_that_the_template_changes_cannot_be_continued() {
    for source in ["{{ messages[0].content }}", "{{ messages[1].content|upper }}", "{{ messages|length }}"] {
        assert!(
            message_of(render(source, ANSWER).unwrap_err()).contains("cannot continue the final message"),
            "{source}"
        );
    }
    assert!(matches!(parse(CHATML).render(&[]), Err(Error::Chat(_))));
}

#[test]
fn errors_raised_by_a_template_are_passed_on() {
    let no_user = "{{ raise_exception('System role not supported') if messages[0].role != 'user' }}".to_owned();
    let refuse_all = no_user.clone() + "{{ raise_exception('none at all') }}";
    let messages = [(ChatRole::System, "Be brief."), (ChatRole::User, "Hi")];
    assert_eq!(message_of(render(&refuse_all, &messages).unwrap_err()), "System role not supported");
    assert!(render(&no_user, &messages).is_ok());
    let in_macro = "{% macro no() %}{{ raise_exception('no') }}{% endmacro %}{{ no() }}";
    assert_eq!(message_of(render(in_macro, QUESTION).unwrap_err()), "no");
}

#[test]
fn what_a_template_refuses_is_rendered_in_turns() {
    let joined = render(GEMMA, &[(ChatRole::User, "Be brief.\n\nHi")]).unwrap();
    assert_eq!(render(GEMMA, &[(ChatRole::System, "Be brief."), (ChatRole::User, "Hi")]).unwrap(), joined);
}

#[test]
fn errors_name_the_line() {
    let error = ChatTemplate::parse("test", "a\n{% if %}", Specials::default()).unwrap_err();
    assert!(message_of(error).contains("line 2"));
    assert!(message_of(render("a\n\n{{ missing.role }}", QUESTION).unwrap_err()).contains("line 3"));
}

#[test]
fn generation_tags_open_a_scope_and_print_nothing() {
    for (source, expected) in [
        ("a {%- generation -%} b {%- endgeneration %} c", "ab c"),
        ("{% generation %}\nb\n{% endgeneration %}\nc", "b\nc"),
        ("{% set x = 1 %}{%generation%}{% set x = 2 %}{{ x }}{%endgeneration%}{{ x }}", "21"),
        ("{% set generation = 3 %}{{ generation }}{{ '{% generation' }}", "3{% generation"),
    ] {
        assert_eq!(render(source, QUESTION).unwrap(), expected, "{source}");
    }
}

#[test]
fn dates_can_be_fixed() {
    let source = "{{ strftime_now('%d %b %Y') }}";
    assert_eq!(parse(source).with_date(1_709_210_096).render(&chat(QUESTION)).unwrap(), "29 Feb 2024");
    assert_eq!(render(source, QUESTION).unwrap().len(), 11);
    assert!(message_of(render("{{ strftime_now('%Q') }}", QUESTION).unwrap_err()).contains("`%Q`"));
}

#[test]
fn line_breaks_and_missing_specials_equal_those_of_jinja2() {
    assert_eq!(render("a\r\n{% if true %}\r\nb\rc\r\n{% endif %}\r\n", QUESTION).unwrap(), "a\nb\nc\n");
    assert_eq!(
        render("{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ pad_token is defined }}", QUESTION).unwrap(),
        "<s>TrueFalse"
    );
}

#[test]
fn expensive_templates_end_early() {
    let doubling = "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}";
    let tree = "{% set ns = namespace(x=[]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    for source in [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
        "{{ 'x' * 10**12 }}",
        "{{ 'x'.ljust(10**12) }}",
        "{{ ('%099999999d')|format(1) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include 'chat' %}",
        doubling,
        "{% set ns = namespace(x=[1]) %}{% for i in range(9999) %}{% set ns.x = ns.x + [1] %}{% endfor %}",
        &format!("{tree}{{{{ ns.x|tojson }}}}"),
        &format!("{tree}{{{{ ns.x }}}}"),
        &format!("{tree}{{{{ ns.x|string|length }}}}"),
    ] {
        assert!(render(source, QUESTION).is_err(), "{source}");
    }
}

#[test]
fn no_text_is_built_before_it_is_paid_for() {
    let large = "{% set ns = namespace(x='ab') %}{% for i in range(18) %}{% set ns.x = ns.x + ns.x %}{% endfor %}";
    for source in [
        "{{ '{:>100000000000}'.format('x') }}",
        "{{ '{:.100000000000f}'.format(1.5) }}",
        "{{ '{0:99999999999}'.format(1) }}",
        "{{ '{:é^99999999999}'.format('x') }}",
        "{{ '{:099999999999d}'.format(7) }}",
        "{{ '{:184467440737095516150}'.format(1) }}",
        &format!("{large}{{{{ '{}'.format(ns.x)|length }}}}", "{0}".repeat(9000)),
        &format!("{large}{{{{ range(9000)|list|tojson(separators=(ns.x, ':'))|length }}}}"),
        &format!("{large}{{{{ {{'a': 1, 'b': 2}}|tojson(separators=(',', ns.x * 9))|length }}}}"),
        &format!("{large}{{{{ range(9000)|list|tojson(indent=ns.x)|length }}}}"),
        &format!(
            "{large}{{% set a = ns.x ~ 'a' %}}{{% for i in range(90000) %}}{{{{ a == ns.x ~ 'b' }}}}{{% endfor %}}"
        ),
    ] {
        let message = message_of(render(source, QUESTION).unwrap_err());
        assert!(message.contains("more steps") || message.contains("format"), "{source}: {message}");
    }
}

#[test]
fn the_longest_chats_have_steps_enough() {
    let turns: Vec<_> =
        (0..1024).map(|turn| [(ChatRole::User, "Hi"), (ChatRole::Assistant, "Yes")][turn % 2]).collect();
    let busy = "{% for m in messages %}{% for i in range(20) %}\
        {% if m.role == 'user' and loop.last %}{{ m.content|trim }}\
        {% endif %}{% endfor %}{% endfor %}";
    assert_eq!(render(busy, &turns[..1023]).unwrap().len(), 1024);
    let long = "word ".repeat(400_000);
    assert_eq!(render(CHATML, &[(ChatRole::User, &long)]).unwrap().len(), long.len() + 50);
}

#[test]
fn deep_sources_and_values_do_not_overflow_the_stack() {
    for source in [
        format!("{{{{ {}1{} }}}}", "(".repeat(60_000), ")".repeat(60_000)),
        format!("{}{}", "{% if 1 %}".repeat(6_000), "{% endif %}".repeat(6_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(32_000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(60_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(130_000)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(10_000)),
        format!("{{{{ 1{} }}}}", "~1".repeat(50_000)),
    ] {
        let parsed = ChatTemplate::parse("test", &source, Specials::default());
        let _ = parsed.and_then(|template| template.render(&chat(QUESTION)));
    }
    for show in ["", "{{ ns.x }}", "{{ ns.x == ns.y }}", "{{ ns.x|tojson }}"] {
        let source = format!(
            "{{% set ns = namespace(x=[], y=[]) %}}{{% for i in range(99999) %}}{{% set ns.x = [ns.x] %}}\
            {{% set ns.y = [ns.y] %}}{{% endfor %}}{show}"
        );
        let _ = render(&source, QUESTION);
    }
}

#[test]
fn a_template_reaches_nothing_outside() {
    for source in [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ self.__init__.__globals__.__builtins__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ messages.__class__.__base__.__subclasses__()[1] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'base' %}",
    ] {
        assert!(matches!(render(source, QUESTION), Err(Error::Template { .. })), "{source}");
    }
    let inert = "{{ 7 * 7 }}{% raise %}{# #}";
    assert!(render(CHATML, &[(ChatRole::User, inert)]).unwrap().contains(inert), "content is never read as Jinja");
}
