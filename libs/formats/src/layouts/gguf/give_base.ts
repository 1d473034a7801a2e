/** How to say which base model an adapter is for: on the command line, and in the recipe of a merge. */
export const GIVE_BASE =
  "Name the folder with the base model's config.json: with --base DIR, or base_model: DIR in a recipe.";
