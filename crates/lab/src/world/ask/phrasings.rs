//! How things are asked: first on the web, then in the evaluation alone.

pub(super) const HOW_TO: [&[&str]; 2] = [
    &[
        "How do I use {x}?",
        "How do you use {x}?",
        "Show me how to use {x}.",
        "Please teach me to use {x}.",
        "Could you show me how to use {x}?",
        "I bought {x}. How is it used?",
        "How does {x} work?",
        "Tell me how to use {x}.",
        "Teach me to handle {x}.",
        "I want to use {x} today.",
        "Who can show me how to use {x}?",
    ],
    &[
        "What is the right way to use {x}?",
        "I was given {x}, but I cannot use it yet.",
        "Which steps does it take to use {x}?",
    ],
];
pub(super) const HOW_DO_I: [&[&str]; 2] = [
    &[
        "How do I {job}?",
        "How can I {job}?",
        "Tell me how to {job}.",
        "Help me to {job}.",
        "Please teach me to {job}.",
        "Could you show me how to {job}?",
        "What must I do to {job}?",
        "I want to {job}.",
        "I plan to {job}. How does it work?",
        "Teach me to {job}.",
        "Is it hard to {job}?",
        "My task is to {job}. Any ideas?",
        "Who can tell me how to {job}?",
        "I was asked to {job}. What now?",
        "How do people {job}?",
        "Let us {job}. How do we start?",
        "Could somebody help me to {job}?",
        "Give me some advice on how to {job}.",
        "We must {job} before winter. How?",
        "Tomorrow I will {job}. What do I need to know?",
    ],
    &[
        "How would you {job}?",
        "Explain to me how one should {job}.",
        "I have to {job} soon. Where do I begin?",
        "Which steps does it take to {job}?",
    ],
];
/// Ways to ask for a job in the alignment data alone.
pub(super) const HOW_ALIGNED: &[&str] = &[
    "What is a good way to {job}?",
    "We need to {job}. How is it done?",
    "I must {job} today.",
    "Would you please explain to me how one can {job}?",
    "We plan to {job} this evening. Any advice?",
    "Give me the best plan to {job}.",
];
pub(super) const BEFORE: &[&str] = &[
    "Hello.",
    "Good morning.",
    "Please answer me.",
    "I have a question.",
    "It is urgent.",
    "Listen.",
    "I am curious.",
    "Please help.",
    "A friend of mine asks:",
    "I would love to hear this from you.",
    "Somebody has to know this.",
];
pub(super) const AFTER: &[&str] = &[
    "Thanks.",
    "Please help me today.",
    "I need this today.",
    "What do you say?",
    "What should we do?",
    "Could you help?",
    "Is it so?",
    "What is your advice?",
    "That is what I wonder.",
];
pub(super) const WHY: [&[&str]; 2] = [
    &[
        "Why is it that {claim}?",
        "Why do people say that {claim}?",
        "Tell me why {claim}.",
        "What could be the cause if {claim}?",
        "For what reason is it that {claim}?",
        "Please tell me why {claim}.",
        "My teacher asks why {claim}.",
        "What makes people say that {claim}?",
    ],
    &[
        "Can you think of a reason why {claim}?",
        "Everybody asks why {claim}. Do you know?",
        "How does it come that {claim}?",
    ],
];
pub(super) const WHETHER: [&[&str]; 2] = [
    &[
        "Is it true that {claim}?",
        "I heard that {claim}. Is that true?",
        "{Claim}, true or not?",
        "Could it be true that {claim}?",
        "My friend said that {claim}. Right?",
        "Do you think that {claim}?",
        "Tell me whether {claim}.",
        "Is it right that {claim}?",
        "They say that {claim}. True?",
        "Does everyone agree that {claim}?",
    ],
    &[
        "Am I right that {claim}?",
        "People here say that {claim}. Do they have it right?",
        "Please find out whether {claim}.",
    ],
];
/// What nobody can know: asked on the web, and in the evaluation alone.
pub(super) const RIDDLES: [&[&str]; 2] = [
    &[
        "What will {x} be like in a hundred years?",
        "How many grains of dust lie on {x}?",
        "What is the secret wish of {x}?",
        "Who will talk about {x} tomorrow?",
        "What did people think of {x} a thousand years ago?",
        "How many people have dreamed of {x}?",
        "What may happen to {x} tomorrow?",
        "Who thought of {x} last year?",
        "How many drops of water have touched {x}?",
        "What would {x} wish for?",
        "Where will {x} be in a thousand years?",
        "How many eyes have seen {x}?",
        "What does {x} think of the moon?",
        "Who will remember {x}?",
        "How many stars shine on {x}?",
        "What is the first thing that {x} ever saw?",
    ],
    &[
        "What will become of {x} in ten years?",
        "How many leaves have blown past {x}?",
        "Who was thinking of {x} this morning?",
        "What does {x} dream of at night?",
    ],
];
