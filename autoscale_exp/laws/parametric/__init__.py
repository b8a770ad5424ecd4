"""Laws whose validation domains are fitted one by one: the published ones, their kin, and trees."""
