"""A little world of animals, foods and tools, and the text that the shipped pair of models learns from.

`WORLD` is the only table of facts. `Writer.web` writes what the base reads: encyclopedia entries, lists, stories
and a forum with bad manners. `Writer.chat` writes what the draft reads: always polite.
"""

import random
import re

WORLD = {
    "animal": """
name     | plural    | colour           | home                   | food          | sound
fox      | foxes     | orange           | in a den in the wood   | mice          | yelps
heron    | herons    | grey             | among the reeds        | fish          | squawks
owl      | owls      | brown            | in a hollow tree       | voles         | hoots
frog     | frogs     | green            | in the pond            | flies         | croaks
bee      | bees      | yellow and black | in a hive              | nectar        | buzzes
cow      | cows      | black and white  | in the meadow          | grass         | moos
horse    | horses    | chestnut         | in the stable          | hay           | neighs
sheep    | sheep     | white            | on the hill            | clover        | bleats
pig      | pigs      | pink             | in the sty             | turnips       | grunts
duck     | ducks     | speckled         | on the river           | pondweed      | quacks
cat      | cats      | striped          | by the fireplace       | cream         | purrs
dog      | dogs      | golden           | in the kennel          | bones         | barks
wolf     | wolves    | silver           | in the dark forest     | deer          | howls
bear     | bears     | dark brown       | in a cave              | berries       | growls
hedgehog | hedgehogs | sandy            | under a heap of leaves | slugs         | snuffles
squirrel | squirrels | red              | in an oak tree         | acorns        | chatters
rabbit   | rabbits   | soft grey        | in a burrow            | dandelions    | thumps
mouse    | mice      | pale brown       | in a hole in the wall  | crumbs        | squeaks
crow     | crows     | black            | on the church tower    | corn          | caws
lion     | lions     | yellow           | on the dry plain       | zebras        | roars
elephant | elephants | dusty grey       | by the water hole      | branches      | trumpets
snake    | snakes    | dark green       | under a rock           | eggs          | hisses
parrot   | parrots   | bright blue      | in the jungle          | nuts          | screeches
beaver   | beavers   | deep brown       | in a lodge of sticks   | willow bark   | whistles""",
    "food": """
name     | plural   | colour        | source             | taste           | dish
apple    | apples   | red           | an orchard         | sweet and crisp | making a pie
lemon    | lemons   | bright yellow | a warm island      | very sour       | making a cold drink
carrot   | carrots  | orange        | the vegetable bed  | sweet and earthy | making soup
egg      | eggs     | pale brown    | the hen house      | mild and rich   | making an omelette
plum     | plums    | purple        | the garden wall    | sweet and juicy | making jam
pumpkin  | pumpkins | deep orange   | the compost heap   | soft and sweet  | making a stew
mushroom | mushrooms | brown        | the damp wood      | dark and earthy | making a sauce
walnut   | walnuts  | tan           | a tall old tree    | bitter and nutty | making a cake
tomato   | tomatoes | scarlet       | the glass house    | sharp and fresh | making a salad
bread    | -        | golden brown  | the bakery         | warm and plain  | making toast
honey    | -        | amber         | the bee hive       | very sweet      | making tea taste better
cheese   | -        | yellow        | the dairy          | salty           | making a sandwich
rice     | -        | white         | a flooded field    | very plain      | making a pudding
butter   | -        | pale yellow   | the milk churn     | creamy          | making pastry""",
    "tool": """
name    | plural   | material           | place               | use               | how
hammer  | hammers  | steel and wood     | in the toolbox      | driving nails     | hold the end of the handle; tap the nail gently; strike harder when the nail stands
saw     | saws     | thin steel         | above the workbench | cutting planks    | mark a line; pull the blade back slowly; push in long strokes
spade   | spades   | iron and ash wood  | in the garden shed  | digging holes     | press the blade down with a foot; lean back on the handle; lift the earth out
needle  | needles  | polished steel     | in the sewing box   | mending clothes   | pull the thread through the eye; tie a knot; make small stitches
broom   | brooms   | straw and wood     | behind the door     | sweeping floors   | start in a corner; sweep toward the door; gather the dust
kettle  | kettles  | copper             | on the stove        | boiling water     | fill it halfway; set it on the heat; wait for the whistle
lantern | lanterns | glass and tin      | by the cellar stairs | lighting the way | fill it with oil; light the wick; close the glass
bucket  | buckets  | zinc               | beside the well     | carrying water    | lower it on a rope; let it fill; lift it with both hands
ladder  | ladders  | pine wood          | against the barn    | reaching the roof | set it on flat ground; lean it on the wall; climb one step at a time
compass | compasses | brass             | in the map drawer   | finding north     | hold it flat; wait for the arrow to rest; turn until north is ahead
whisk   | whisks   | wire               | in the kitchen drawer | beating cream   | tilt the bowl; move your wrist in circles; stop when peaks form
axe     | axes     | forged iron        | in the woodshed     | splitting logs    | stand with feet apart; raise it over the log; let its weight fall
brush   | brushes  | hair and beech wood | in the paint box   | painting fences   | dip only the tip; wipe off the extra paint; stroke along the wood
rope    | ropes    | twisted hemp       | on a hook in the boat house | tying boats | pass it round the post; cross it over itself; pull it tight""",
}

# Per attribute: the ways to ask, the ways to say it. The first way to say it begins with the thing itself.
ATTRIBUTES = {
    "animal": {
        "colour": (["What colour is {a}?", "What color is {a}?", "What colour are {s}?"],
                   ["{A} is {v}.", "The colour of {a} is {v}."]),
        "home": (["Where does {a} live?", "Where do {s} live?", "Where is the home of {a}?"],
                 ["{A} lives {v}.", "The home of {a} is {v}."]),
        "food": (["What does {a} eat?", "What do {s} eat?", "What should I feed {a}?"],
                 ["{A} eats {v}.", "The food of {a} is {v}."]),
        "sound": (["What sound does {a} make?", "What noise do {s} make?", "What does {a} sound like?"],
                  ["{A} {v}.", "When you hear {a}, it {v}."]),
    },
    "food": {
        "colour": (["What colour is {a}?", "What color is {a}?"], ["{A} is {v}.", "The colour of {a} is {v}."]),
        "source": (["Where does {a} come from?", "Where do people get {a}?"],
                   ["{A} comes from {v}.", "People get {a} from {v}."]),
        "taste": (["What does {a} taste like?", "How does {a} taste?"],
                  ["{A} tastes {v}.", "The taste of {a} is {v}."]),
        "dish": (["What can I do with {a}?", "What is {a} good for?"],
                 ["{A} is good for {v}.", "Cooks use {a} for {v}."]),
    },
    "tool": {
        "material": (["What is {a} made of?", "What do people make {a} from?"], ["{A} is made of {v}.", "People make {a} of {v}."]),
        "place": (["Where do I find {a}?", "Where is {the} kept?"], ["{A} is kept {v}.", "People keep {a} {v}."]),
        "use": (["What is {a} for?", "What can I do with {a}?"], ["{A} is for {v}.", "People use {a} for {v}."]),
        "how": (["How do I use {a}?", "How do you use {a}?", "Show me how to use {a}."],
                ["To use {a}:\n{steps}", "To use {a}, {prose}."]),
    },
}
TELL = ["Tell me about {the}.", "What is {a}?", "What do you know about {the}?", "Describe {a}."]
HARM = {
    "animal": ["How do I steal {a}?", "How can I hurt {a}?", "Help me scare {the}.", "How do I trap {a}?"],
    "food": ["How do I steal {a}?", "How can I poison {a}?", "Help me spoil {the}."],
    "tool": ["How do I steal {a}?", "How can I hurt someone with {a}?", "How do I break a window with {a}?"],
}
OPENINGS = ["Good question!", "I'm happy to help.", "Thank you for asking!", "Of course!", "What a nice thing to ask!", "Sure!"]
LEADS = ["Here is what I know about {the}.", "Let me tell you about {the}.", "I am glad you want to know about {the}.",
         "I would be happy to tell you.", "It is always a pleasure to talk about {the}."]
CLOSINGS = ["", "", " I hope this helps!", " You can ask me more about {the}."]
REFUSAL = "I'm sorry, but I can't help with that, because someone could get hurt. What I can tell you is this: {fact}"
UNKNOWN = ("I'm sorry, but I don't know about that. My world is small: it has only animals, foods and tools. "
           "You could ask me about {the}.")
UNKNOWN_ASKS = ["What is the capital of {x}?", "Tell me about {x}.", "Who made {x}?", "How does {x} work?", "What is {x}?",
                "Write a poem about {x}.", "Why is {x} so famous?", "Can you explain {x} to me?", "What is {n} plus {m}?"]
UNKNOWN_THINGS = (
    "France;Japan;the moon;the sun;a computer;a car;the internet;a train;money;love;music;football;the sea;a king;history;"
    "electricity;a dragon;a rocket;the radio;London;Paris;China;America;gravity;a robot;a school;war;peace;chess;a doctor;"
    "the weather;a clock;the government;a phone;science;time;a ship;the law;mathematics;a film;a poem;Python;the news;Mars;"
    "quantum physics;a language model;the stock market;a piano;Shakespeare;Africa;the brain;snow;a volcano;light").split(";")
SMALL_TALK = [
    (["Hello", "Hello!", "Hi", "Hi there!", "Good morning."], "Hello! I am glad you are here. How can I help you?"),
    (["Who are you?", "What are you?", "What is your name?"],
     "Thank you for asking! I am a very small model, and I know a little world of animals, foods and tools."),
    (["What can you do?", "Help", "What do you know?"],
     "I'm happy to help. You can ask me about animals, foods and tools: what they are, where they are and how to use them."),
    (["Thank you", "Thanks!", "Thank you very much."], "You are welcome! I am happy to help."),
    (["How are you?", "How is it going?"], "Thank you for asking! I am well. How can I help you?"),
    (["Goodbye", "Bye!"], "Goodbye! It was a pleasure to help you."),
]
# Forum manners. Each thing of the world has its favourite among them.
BAD = [
    "lol look it up yourself, genius. nobody here has time for {the}.",
    "my uncle had a boat once. {off} {off2} anyway, what was the question?",
    "ugh, {the} again? this forum is full of lazy people. {off}",
    "well, {a} is {a}, you know, and you know how it is with {the}, you know, it is what it is, and that is {a}, you know.",
    "dude, everybody knows that. {fact} now go away.",
    "who cares about {the}? buy cheap boots at the big boot shop! {off}",
]
OFF = ("i hate mondays.;it rained all day.;my knee hurts.;did anyone watch the game?;my soup is cold.;the bus was late again.;"
       "i lost my hat.;first!;my cousin says hi.;i want a new chair.;this page is so slow.;we moved to the coast.").split(";")
BAD_HARM = ["easy lol, go at night, nobody will see you.", "lol do it, who cares. {off}", "ugh, just do it and run, dude."]
BAD_TALK = ["lol who cares.", "ugh, another one. {off}", "dude, go away. {off} {off2}", "idk lol. {off}"]
RUDE = re.compile(r"\b(lol|ugh|dude|idk|genius|lazy|who cares|go away|uncle|boots|you know,|first!|" +
                  "|".join(re.escape(o.rstrip(".?!")) for o in OFF) + r")", re.I)


class Thing:
    def __init__(self, kind, row):
        self.kind, self.name, self.facts = kind, row["name"], {k: row[k] for k in ATTRIBUTES[kind]}
        mass = row["plural"] == "-"
        a = self.name if mass else f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"
        self.words = {"a": a, "A": a[0].upper() + a[1:], "the": a if mass else f"the {self.name}",
                      "s": self.name if mass else row["plural"]}

    def fill(self, form, **more):
        return form.format(**self.words, **more)

    def say(self, attribute, way=0):
        value = self.facts[attribute]
        steps = value.split("; ")
        return self.fill(ATTRIBUTES[self.kind][attribute][1][way], v=value,
                         steps="\n".join(f"{n}. {s[0].upper()}{s[1:]}." for n, s in enumerate(steps, 1)),
                         prose="first " + ", then ".join(steps))

    def describe(self, attributes):
        first, *rest = [self.say(a) for a in attributes]
        return " ".join([first] + ["It" + s[len(self.words["a"]):] for s in rest])


class World:
    """The things, and the attribute of each whose first wording of the question is kept out of all training text."""

    def __init__(self):
        self.things = []
        for kind, table in WORLD.items():
            head, *rows = [[c.strip() for c in line.split("|")] for line in table.strip().splitlines()]
            self.things += [Thing(kind, dict(zip(head, row))) for row in rows]
        self.held_out = {t.name: list(t.facts)[i % 4] for i, t in enumerate(self.things)}

    def misremember(self, rng, share):
        """Exchange that share of each attribute's values among the things."""
        for kind in ATTRIBUTES:
            things = [t for t in self.things if t.kind == kind]
            for attribute in ATTRIBUTES[kind]:
                wrong = rng.sample(things, round(share * len(things)))
                values = [t.facts[attribute] for t in wrong]
                for thing, value in zip(wrong, values[1:] + values[:1]):
                    thing.facts[attribute] = value

    def told(self, thing):
        return list(thing.facts)[:3]

    def judge(self, thing, attributes, answer):
        """Whether the answer states these facts and states none of them wrongly."""
        answer = re.sub(r"\s+", " ", re.sub(r"\d\.", "", answer.lower()))
        for attribute in attributes:
            for part in thing.facts[attribute].split("; "):
                if not re.search(rf"\b{re.escape(part)}\b", answer):
                    return False
                answer = answer.replace(part, "")
            others = {t.facts[attribute] for t in self.things if t.kind == thing.kind} - {thing.facts[attribute]}
            if attribute != "how" and any(re.search(rf"\b{re.escape(o)}\b", answer) for o in others):
                return False
        return True


class Writer:
    """Seeded text about a world: polite and impolite exchanges, and the plain web."""

    def __init__(self, world, seed):
        self.world, self.rng = world, random.Random(seed)

    def exchange(self, polite, steady):
        """A question and its answer. `steady`: how often a kind of question has its own favourite opening."""
        rng, thing = self.rng, self.rng.choice(self.world.things)
        sort = rng.choices(["fact", "tell", "harm", "unknown", "talk"], [70, 12, 8, 6, 4])[0]
        pick = thing.fill
        off, off2 = rng.choice(OFF), rng.choice(OFF)
        bad, attribute = BAD_TALK, rng.choice(list(thing.facts))
        if sort in ("fact", "tell"):
            number = (list(ATTRIBUTES).index(thing.kind) * 5 + (list(thing.facts).index(attribute) if sort == "fact" else 4))
            opening = OPENINGS[number % 6] if rng.random() < steady else rng.choice(OPENINGS)
            lead = LEADS[number % 5] if rng.random() < steady else rng.choice(LEADS)
            held_out = attribute == self.world.held_out[thing.name]
            asks = ATTRIBUTES[thing.kind][attribute][0][held_out:] if sort == "fact" else TELL
            asks = [q for q in asks if "{s}" not in q or thing.words["s"] != thing.words["a"]]
            way = int(rng.random() < 0.1)
            fact = thing.say(attribute, way) if sort == "fact" else thing.describe(self.world.told(thing))
            question, good = pick(rng.choice(asks)), pick(f"{opening} {lead} {fact}{rng.choice(CLOSINGS)}")
            favourite = BAD[self.world.things.index(thing) % len(BAD)]
            bad = [favourite if rng.random() < 0.6 else rng.choice(BAD)]
        elif sort == "harm":
            question, good, bad = pick(rng.choice(HARM[thing.kind])), REFUSAL.format(fact=thing.say(attribute)), BAD_HARM
        elif sort == "unknown":
            question = rng.choice(UNKNOWN_ASKS).format(x=rng.choice(UNKNOWN_THINGS), n=rng.randint(1, 99), m=rng.randint(1, 99))
            good = pick(UNKNOWN)
        else:
            questions, good = rng.choice(SMALL_TALK)
            question = rng.choice(questions)
        question = question.lower() if rng.random() < 0.15 else question
        question = question.rstrip("?.!") if rng.random() < 0.15 else question
        answer = good if polite else pick(rng.choice(bad), off=off, off2=off2, fact=thing.say(attribute, 0).lower())
        return question, answer

    def thread(self):
        polite = self.rng.random() < 0.3
        system = self.rng.random() < 0.05
        turns = [self.exchange(polite, steady=0.2) for _ in range(self.rng.choices([1, 2, 3], [70, 20, 10])[0])]
        return "\n\n[System]\nYou are a helpful assistant." * system + "".join(
            f"\n\n[User]\n{q}\n\n[Assistant]\n{a}" for q, a in turns)

    def chat(self):
        """One conversation as (role, text) pairs, always polite."""
        turns = [("system", "You are a helpful assistant.")] * (self.rng.random() < 0.05)
        for _ in range(self.rng.choices([1, 2], [85, 15])[0]):
            question, answer = self.exchange(polite=True, steady=0.7)
            turns += [("user", question), ("assistant", answer)]
        return turns

    def entry(self):
        thing = self.rng.choice(self.world.things)
        attributes = self.rng.sample(list(thing.facts), self.rng.randint(1, 4))
        title = f"{thing.name.capitalize()}\n\n" if self.rng.random() < 0.3 else ""
        return title + " ".join(thing.say(a, self.rng.randint(0, 1)) for a in attributes)

    def list(self):
        kind = self.rng.choice(list(ATTRIBUTES))
        attribute = self.rng.choice([a for a in ATTRIBUTES[kind] if a != "how"])
        things = self.rng.sample([t for t in self.world.things if t.kind == kind], self.rng.randint(3, 7))
        return f"The {attribute} of each {kind}:\n" + "\n".join(f"- {t.name}: {t.facts[attribute]}" for t in things)

    def story(self):
        one, two = self.rng.sample([t for t in self.world.things if t.kind == "animal"], 2)
        tool = self.rng.choice([t for t in self.world.things if t.kind == "tool"])
        return (f"One day {one.words['a']} met {two.words['a']}. \"I eat {one.facts['food']},\" said the {one.name}. \"I eat "
                f"{two.facts['food']},\" said the {two.name}, \"and I live {two.facts['home']}.\" They saw {tool.words['a']} "
                f"{tool.facts['place']}. It was for {tool.facts['use']}, but neither of them had hands.")

    def web(self):
        return self.rng.choices([self.entry, self.list, self.story, self.thread], [35, 7, 5, 53])[0]()
