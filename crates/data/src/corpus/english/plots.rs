//! What happens in the English stories: goals, troubles that fit them, ways out that fit the troubles.

use crate::corpus::grammar::{Family, Goal, Trouble};
use Family::{Bring, Find, Learn, Make, See};

pub(super) const GOALS: &[Goal] = &[
    Goal {
        family: Find,
        want: "find the red ball",
        done: "they found the red ball",
        thing: "the red ball",
        some: "",
        why: &[
            "{Hero} had lost the red ball, and no game was fun without it.",
            "The red ball had rolled away.",
        ],
        win: &[
            "Soon the red ball was bouncing [up and down|again].",
            "{Hero} kicked the red ball, and {friend} kicked it back.",
        ],
    },
    Goal {
        family: Find,
        want: "find the silver key",
        done: "they found the silver key",
        thing: "the silver key",
        some: "",
        why: &[
            "The silver key was gone, and the music box could not play.",
            "{Hero} had dropped the silver key somewhere.",
        ],
        win: &[
            "The silver key turned with a click, and the music box played.",
            "{Hero} put the silver key on a [red|long] ribbon so that it would never get lost again.",
        ],
    },
    Goal {
        family: Find,
        want: "find the yellow kite",
        done: "they found the yellow kite",
        thing: "the yellow kite",
        some: "",
        why: &[
            "The wind had carried the yellow kite away.",
            "{Hero} had let go of the yellow kite, just for a moment.",
        ],
        win: &[
            "Soon the yellow kite danced in the sky again.",
            "The yellow kite had a small hole, but it [flew|could fly] as well as ever.",
        ],
    },
    Goal {
        family: Find,
        want: "find the blue hat",
        done: "they found the blue hat",
        thing: "the blue hat",
        some: "",
        why: &[
            "The blue hat was {hero}'s favorite, and it was gone.",
            "A gust of wind had stolen the blue hat.",
        ],
        win: &[
            "{Hero} put on the blue hat. It was a little [dusty|wet], but it still fit.",
            "A [ladybug|snail] was sitting in the blue hat, and it looked very pleased.",
        ],
    },
    Goal {
        family: Find,
        want: "find the toy boat",
        done: "they found the toy boat",
        thing: "the toy boat",
        some: "",
        why: &["After the big storm, the toy boat was gone.", "{Hero} could not find the toy boat anywhere."],
        win: &[
            "They put the toy boat in a puddle, and it [floated|sailed] like a real ship.",
            "{Hero} dried the toy boat and gave it a new [white|red] sail.",
        ],
    },
    Goal {
        family: Make,
        want: "bake an apple cake",
        done: "they baked an apple cake",
        thing: "the cake",
        some: "sugar",
        why: &["The apples were ripe and sweet.", "It was almost {friend}'s birthday."],
        win: &[
            "The cake came out of the oven golden and warm.",
            "The cake was a little [crooked|flat], but it tasted wonderful.",
        ],
    },
    Goal {
        family: Make,
        want: "build a swing",
        done: "they built a swing",
        thing: "the swing",
        some: "rope",
        why: &["The old oak by the house looked lonely.", "{Hero} wanted to know how it feels to fly."],
        win: &[
            "The swing flew up and down, and they took turns.",
            "From the swing, {hero} could touch the [leaves|sky] with {his} toes.",
        ],
    },
    Goal {
        family: Make,
        want: "make a paper lantern",
        done: "they made a paper lantern",
        thing: "the lantern",
        some: "paper",
        why: &["The nights were long and dark.", "The lantern feast was coming, and {hero} had no lantern."],
        win: &[
            "The lantern glowed like a small moon.",
            "When the lantern was lit, even the [moths|stars] came to look.",
        ],
    },
    Goal {
        family: Make,
        want: "build a birdhouse",
        done: "they built a birdhouse",
        thing: "the birdhouse",
        some: "nails",
        why: &[
            "Winter was coming, and the birds had no home.",
            "Every morning a bird sang at the window, and {hero} wanted to thank it.",
        ],
        win: &[
            "By evening, [two|three] birds had moved into the birdhouse.",
            "The birdhouse had a round door and a very [red|pointed] roof.",
        ],
    },
    Goal {
        family: Make,
        want: "cook a big pot of soup",
        done: "they cooked a big pot of soup",
        thing: "the soup",
        some: "carrots",
        why: &["It was cold outside, and everyone was hungry.", "{Hero} had dreamed of soup all night."],
        win: &[
            "The soup was hot and [thick|tasty], and there was enough for everyone.",
            "They ate the soup until the pot was [shiny|empty] and they were round.",
        ],
    },
    Goal {
        family: Bring,
        want: "bring a jar of honey to Otto",
        done: "they brought honey to Otto",
        thing: "the honey",
        some: "",
        why: &[
            "An old bear named Otto lived {far} and loved honey more than anything.",
            "An old bear named Otto lived {far} and had a [bad|sore] throat.",
        ],
        win: &[
            "Otto tasted the honey and smiled. “Sweet, but not as sweet as you two,” said Otto.",
            "“Honey!” said Otto and licked the spoon [twice|three times].",
        ],
    },
    Goal {
        family: Bring,
        want: "bring a basket of pears to Nell",
        done: "they brought pears to Nell",
        thing: "the pears",
        some: "",
        why: &[
            "An old donkey named Nell lived {far} and had no fruit tree.",
            "Soon it was the birthday of an old donkey named Nell, who lived {far}.",
        ],
        win: &[
            "Nell bit into a pear, and the juice ran everywhere.",
            "“I will make jam,” said Nell, “and you will have the first [jar|spoon].”",
        ],
    },
    Goal {
        family: Bring,
        want: "bring a letter to Gus",
        done: "they brought a letter to Gus",
        thing: "the letter",
        some: "",
        why: &[
            "An old badger named Gus lived {far} and was waiting for a letter.",
            "An old badger named Gus lived {far} and never got any letters.",
        ],
        win: &[
            "Gus read the letter [twice|three times] and laughed with joy.",
            "The letter said, “You are loved.” Gus [smiled|laughed] and cried at the same time.",
        ],
    },
    Goal {
        family: Bring,
        want: "bring a warm scarf to Hilda",
        done: "they brought a warm scarf to Hilda",
        thing: "the scarf",
        some: "",
        why: &[
            "An old sheep named Hilda lived {far} and was always cold.",
            "Snow was coming, and an old sheep named Hilda, who lived {far}, had no scarf.",
        ],
        win: &[
            "The scarf was so long that it went around Hilda [four|five] times.",
            "“Now winter can come,” said Hilda and wrapped up in the scarf.",
        ],
    },
    Goal {
        family: Bring,
        want: "bring flowers to Olive",
        done: "they brought flowers to Olive",
        thing: "the flowers",
        some: "",
        why: &[
            "An old tortoise named Olive lived {far} and could not go out anymore.",
            "An old tortoise named Olive lived {far} and felt lonely.",
        ],
        win: &[
            "Olive smelled the flowers and sneezed, and then everyone laughed.",
            "Soon Olive's whole room smelled of [roses|spring].",
        ],
    },
    Goal {
        family: See,
        want: "see the big moon rise",
        done: "they saw the big moon rise",
        thing: "the moon",
        some: "",
        why: &[
            "People said that nothing was as round as the moon in autumn.",
            "{Hero} had never seen the moon from the high rock.",
        ],
        win: &[
            "Then the moon rose, round and [gold|white], and nobody said a word.",
            "The moon came up so [slowly|softly] that it seemed to be shy.",
        ],
    },
    Goal {
        family: See,
        want: "see the falling stars",
        done: "they saw the falling stars",
        thing: "the stars",
        some: "",
        why: &["Once a year, stars fell over the high rock.", "{Hero} needed a star to make a wish."],
        win: &[
            "One star fell, then ten, then more than they could count.",
            "{Hero} saw the first star and made a [big|secret] wish.",
        ],
    },
    Goal {
        family: See,
        want: "see the fireflies dance",
        done: "they saw the fireflies dance",
        thing: "the fireflies",
        some: "",
        why: &[
            "Every summer the fireflies had a dance behind the high rock.",
            "{Hero} had read about fireflies in a book.",
        ],
        win: &[
            "A hundred fireflies danced, and one of them sat down on {hero}'s nose.",
            "The fireflies went on and off like [tiny lamps|little stars].",
        ],
    },
    Goal {
        family: See,
        want: "see the wild geese",
        done: "they saw the wild geese",
        thing: "the geese",
        some: "",
        why: &[
            "In autumn the wild geese flew over the high rock.",
            "{Hero} wanted to wave goodbye to the wild geese.",
        ],
        win: &[
            "The geese came in one long line, and the last one [was late|waved a wing].",
            "“Honk!” said the geese. “Honk!” said {hero}.",
        ],
    },
    Goal {
        family: Learn,
        want: "learn to swim",
        done: "{hero} learned to swim",
        thing: "swimming",
        some: "",
        why: &[
            "{Everyone_could} swim, but not {hero}.",
            "{Hero} had always wanted to be as quick as a fish.",
        ],
        win: &[
            "{Hero} swam all the way to the other side, [splashing|laughing] all the time.",
            "First {hero} swam like a stone, then like a leaf, and at last like a fish.",
        ],
    },
    Goal {
        family: Learn,
        want: "learn to ride a bike",
        done: "{hero} learned to ride a bike",
        thing: "riding",
        some: "",
        why: &[
            "There was a green bike in the shed, and it looked bored.",
            "{Everyone_could} ride a bike, but not {hero}.",
        ],
        win: &[
            "{Hero} rode the bike in a circle, and then in a [bigger|huge] circle.",
            "The bike went straight ahead, and {hero} rang the bell [ten|twenty] times.",
        ],
    },
    Goal {
        family: Learn,
        want: "learn to whistle",
        done: "{hero} learned to whistle",
        thing: "whistling",
        some: "",
        why: &[
            "{Everyone_could} whistle, but not {hero}.",
            "A bird whistled at the window, and {hero} wanted to answer.",
        ],
        win: &[
            "{Hero} whistled so well that a bird whistled back.",
            "It was a small whistle, but it was {hero}'s own.",
        ],
    },
    Goal {
        family: Learn,
        want: "learn to dance",
        done: "{hero} learned to dance",
        thing: "dancing",
        some: "",
        why: &[
            "There was a feast on Sunday, and everyone would dance.",
            "{Everyone_could} dance, but not {hero}.",
        ],
        win: &[
            "{Hero} danced and danced, and only one [chair|flower pot] fell over.",
            "{Hero} danced to the left, to the right, and once around {friend}.",
        ],
    },
];

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble {
        families: &[Find],
        what: &[
            "They looked [high and low|here and there]. Then {friend} looked up. There was {thing}, at the top of a tall tree!",
            "But {thing} was stuck [high up in|at the top of] a tall tree.",
        ],
        fixes: &[
            "{idea} They shook the tree, one, two, three, and down came {thing} with a [plop|bump].",
            "{idea} {Friend} climbed on {hero}'s back and reached up with a long stick. Down fell {thing}, right on {hero}'s head.",
            "{luck} A squirrel named Hazel ran up the tree and threw {thing} down. “Catch!” said Hazel.",
        ],
    },
    Trouble {
        families: &[Find],
        what: &[
            "Soon they saw {thing}. But it lay on a leaf in the middle of a [deep|cold] pond.",
            "But {thing} had landed on a leaf in the middle of a [deep|cold] pond.",
        ],
        fixes: &[
            "{idea} {Friend} threw little stones behind the leaf, and the waves pushed {thing} to the shore.",
            "{idea} {Friend} took a long branch and pulled the leaf closer and closer, until {hero} could grab {thing}.",
            "{luck} A turtle named Sheldon swam out and brought {thing} back, slowly but safely.",
        ],
    },
    Trouble {
        families: &[Find],
        what: &[
            "Soon they saw what was wrong. {Thing} had fallen into a deep, dark hole.",
            "But {thing} was down in a deep, dark hole.",
        ],
        fixes: &[
            "{idea} {Friend} tied a hook to a long string and fished {thing} out of the hole.",
            "{idea} {Friend} held {hero} by the feet, and {hero} reached down and grabbed {thing}.",
            "{luck} A mole named Digby dug a little tunnel and pushed {thing} out of the hole. “[Special|Underground] mail!” said Digby.",
        ],
    },
    Trouble {
        families: &[Find],
        what: &[
            "Soon they saw {thing}. But it lay in the middle of a thorny bush.",
            "But {thing} was caught in a big, thorny bush.",
        ],
        fixes: &[
            "{idea} {Friend} put on thick gloves, and slowly, slowly pulled {thing} out of the bush.",
            "{idea} {Friend} took two long sticks, like the claws of a crab, and lifted {thing} out of the bush.",
            "{luck} A goat named Bruno came by and ate a path right through the bush. “[Spicy|Delicious]!” said Bruno.",
        ],
    },
    Trouble {
        families: &[Find],
        what: &[
            "Soon they saw {thing}. But a huge cow named Clover was sleeping on it.",
            "But a huge cow named Clover had sat down on {thing} and fallen asleep.",
        ],
        fixes: &[
            "{idea} {Friend} tickled Clover with a feather. “Achoo!” said Clover and rolled over.",
            "{idea} {Friend} whispered, “Breakfast!” Clover jumped up at once.",
            "{idea} {Friend} put a sweet apple in the grass. Clover smelled it, got up, and left {thing} behind.",
        ],
    },
    Trouble {
        families: &[Make],
        what: &[
            "But when they wanted to begin, there was no {some} left.",
            "They looked in every box. But there was no {some} in the house.",
        ],
        fixes: &[
            "{idea} {Friend} went to the market and traded a [shiny shell|funny poem|red button] for some {some}.",
            "{idea} They looked under the bed. There, behind an old shoe, {friend} found some {some}.",
            "{luck} A goose named Greta came by with a cart full of {some}. “Take some,” said Greta. “I have much too much.”",
        ],
    },
    Trouble {
        families: &[Make],
        what: &[
            "But the box with all the things they needed was too heavy.",
            "They packed a box with everything they needed. But it was too heavy to move.",
        ],
        fixes: &[
            "{idea} {Friend} put round sticks under the box, and it rolled along [almost|all] by itself.",
            "{idea} {Friend} opened the box and took out one thing at a time. Suddenly it was easy.",
            "{luck} A horse named Winnie came by and pulled the box home. “Light as a feather,” said Winnie.",
        ],
    },
    Trouble {
        families: &[Make],
        what: &[
            "But just when they began, [dark|gray] clouds came, and it rained and rained.",
            "But suddenly it began to rain, and everything got wet.",
        ],
        fixes: &[
            "{idea} {Friend} found a leaf as big as a [table|door], and they worked under it and stayed dry.",
            "{idea} They carried everything into the barn, and {friend} made a roof out of [a blanket|an old door].",
            "{luck} A swan named Nora opened one big white wing, and under it they could work and stay dry.",
        ],
    },
    Trouble {
        families: &[Make],
        what: &[
            "But nobody knew how to begin.",
            "But it was harder than it looked, and the first try went wrong.",
        ],
        fixes: &[
            "{idea} {Friend} drew a picture in the sand, and then everything was clear.",
            "{idea} They tried it one way, then another way. The third way was just right.",
            "{luck} An owl named Hugo knew how to do it and showed them, step by step.",
        ],
    },
    Trouble {
        families: &[Make],
        what: &[
            "But all their tools were in a box, and the lid was stuck.",
            "They got the tool box. But the lid was stuck and would not open.",
        ],
        fixes: &[
            "{idea} {Friend} rubbed a little butter on the lid. Pop! It was open.",
            "{idea} {Hero} pulled on one side, and {friend} pulled on the other. Pop! They both fell over, but the lid was open.",
            "{luck} A woodpecker named Rocky knocked on the lid [three|four] times. Pop! It was open.",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &[
            "But on the way they came to a wide stream, and the bridge was gone.",
            "They set out early. But soon a wide stream ran across the road, and there was no bridge.",
        ],
        fixes: &[
            "{idea} Together they pushed an old log across the stream and walked over it, [step by step|like cats].",
            "{idea} {Friend} showed the way, and they jumped from stone to stone across the stream. Only one [foot|sock] got wet.",
            "{luck} A beaver named Barney had a little boat and took them across the stream. “Ship ahoy!” said Barney.",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &[
            "But on the way a thick fog came up, and they could not see the road.",
            "They set out early. But soon the fog was as thick as [milk|soup], and they lost the road.",
        ],
        fixes: &[
            "{idea} They stood still and listened. Far away a bell rang, and they followed the sound out of the fog.",
            "{idea} {Friend} put one hand on the old stone wall, and they followed the wall out of the fog.",
            "{luck} A snail named Flash knew every stone of the road and led them out of the fog, very slowly.",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &[
            "But the road went through a wood, and there it was as dark as [night|the inside of a boot].",
            "They set out early. But soon the road went into a wood, and the wood was dark and full of strange sounds.",
        ],
        fixes: &[
            "{idea} They sang as loud as they could, and the dark wood was not scary anymore.",
            "{idea} {Friend} took out a little lamp. The scary sounds were only [two old branches|a sleepy toad].",
            "{luck} A firefly named Sparky flew ahead like a tiny lamp and led them out of the dark wood.",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &[
            "But on the way they came to a high gate, and the gate would not open.",
            "They set out early. But soon a high gate stood in the way, and nobody had a key.",
        ],
        fixes: &[
            "{idea} They had pushed and pushed, but now {friend} pulled. The gate had been open all the time!",
            "{idea} {Friend} found a hole under the gate, and they crawled through, one after the other.",
            "{luck} A mouse named Minnie slipped under the gate and opened it from behind. “[Ladies and gentlemen|Please come in]!” said Minnie.",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &[
            "But on the way a big tree had fallen across the road.",
            "They set out early. But soon they came to a fallen tree, and it was too high to climb.",
        ],
        fixes: &[
            "{idea} {Friend} found a gap under the tree, and they crawled through on their tummies.",
            "{idea} {Friend} climbed on {hero}'s back, got on top of the tree, and pulled {hero} up.",
            "{luck} An elephant named Ella came by and lifted the tree with one [long|strong] trunk. “My morning exercise,” said Ella.",
        ],
    },
    Trouble {
        families: &[Bring, See],
        what: &[
            "But on the way a proud goose named Greta stood on the bridge and let nobody pass.",
            "They set out early. But soon a grumpy goose named Greta stood in the way and let nobody pass.",
        ],
        fixes: &[
            "{idea} {Friend} told a joke about two socks. Greta laughed and laughed and let them pass.",
            "{idea} {Friend} made a deep bow and said, “Please.” “Nobody ever says please to me,” said Greta and let them pass.",
            "{idea} {Friend} picked a flower and gave it to Greta. Greta turned pink and let them pass.",
        ],
    },
    Trouble {
        families: &[Learn],
        what: &[
            "But when it was time to begin, {hero} was afraid, and {his} knees shook.",
            "But {hero} was scared. {His} heart went boom, boom, boom.",
        ],
        fixes: &[
            "{idea} {Friend} stayed very close and counted to three. On three, {hero} tried, and it was not so bad.",
            "{idea} {Friend} went first, fell over, and made a silly face. {Hero} had to laugh, and the fear was gone.",
            "{luck} An owl named Hugo said, “Brave is when your knees shake and you try it anyway.” So {hero} tried.",
        ],
    },
    Trouble {
        families: &[Learn],
        what: &[
            "But it went wrong, not once, not twice, but [five|six|seven] times.",
            "{Hero} tried it in the morning. {Hero} tried it at noon. But it went wrong every time.",
        ],
        fixes: &[
            "{idea} They ate a pear, took a deep breath, and {hero} tried again, slowly this time.",
            "{idea} {Friend} showed {him} only one small step, and then the next one, until {hero} knew them all.",
            "{luck} A frog named Lulu watched and said, “You are trying too hard. Smile, and try again.” So {hero} smiled.",
        ],
    },
    Trouble {
        families: &[Learn],
        what: &[
            "But everyone was looking, and {hero} became very shy.",
            "But some people laughed at the first try, and {hero} wanted to hide.",
        ],
        fixes: &[
            "{idea} They went to a quiet place behind the house, where only the cabbages could see them, and {hero} tried again.",
            "{idea} {Friend} said, “Close your eyes and think that they are all potatoes.” {Hero} laughed and tried again.",
            "{luck} A crow named Edgar said, “At first I fell out of the nest [ten|twenty] times.” So {hero} tried again.",
        ],
    },
];
